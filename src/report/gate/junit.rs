//! Findings as JUnit XML, which CI systems show.

use std::fmt::Write as _;

use super::Finding;

/// The document of these findings; a test case each.
#[must_use]
pub fn junit(findings: &[Finding], target: &str, seconds: f64) -> String {
    let failures = findings.iter().filter(|finding| !finding.met).count();
    let all = findings.len();
    let counts = format!(
        "name=\"sockscope\" tests=\"{all}\" failures=\"{failures}\" errors=\"0\" \
         time=\"{seconds:.3}\""
    );
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(text, "<testsuites {counts}>");
    let _ = writeln!(text, "  <testsuite {counts} skipped=\"0\">");
    for finding in findings {
        let Finding { requirement, met, found } = finding;
        let (name, found) = (escaped(requirement), escaped(found));
        let class = escaped(&format!("sockscope {target}"));
        let case = format!("    <testcase classname=\"{class}\" name=\"{name}\"");
        let _ = match met {
            true => writeln!(text, "{case}>\n      <system-out>{found}</system-out>"),
            false => writeln!(
                text,
                "{case}>\n      <failure type=\"unmet\" message=\"{found}\">not met: \
                 {name}: {found}</failure>"
            ),
        };
        text.push_str("    </testcase>\n");
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// Text as it may stand in an attribute or between tags. XML 1.0 has no place for most
/// control characters, not even by number.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\t' | '\n' | '\r' => {
                let _ = write!(safe, "&#{};", u32::from(c));
            }
            '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_ends_what_it_stands_in() {
        let raw = "a<b>&\"'\n\u{1}\u{1b}[0m\u{ffff}";
        let safe = "a&lt;b&gt;&amp;&quot;&apos;&#10;\u{fffd}\u{fffd}[0m\u{fffd}";
        assert_eq!(escaped(raw), safe);
        let findings = [
            Finding::new("errors.<x> < 1", false, "it is \"9\" & more"),
            Finding::new("a = b", true, "it is b"),
        ];
        let text = junit(&findings, "unix:/a&b", 1.5);
        for part in [
            "tests=\"2\" failures=\"1\"",
            "time=\"1.500\"",
            "classname=\"sockscope unix:/a&amp;b\"",
            "name=\"errors.&lt;x&gt; &lt; 1\"",
            "message=\"it is &quot;9&quot; &amp; more\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
