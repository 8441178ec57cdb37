//! Text that came from elsewhere, made safe to show; and `Name: value` files.

/// `text` on one line, for a terminal: quotes, backslashes, control characters and
/// what does not print are escaped. A command's name may hold any of them.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '\'' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
        out
    })
}

/// `text` with control characters and what does not print escaped, all else as it is.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '\'' | '"' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
        out
    })
}

/// The value behind `name:` in a file of such lines, trimmed: /proc/meminfo,
/// /proc/PID/status.
#[must_use]
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim_end() == name).then(|| value.trim())
    })
}

/// The value behind `name:` in bytes; the kernel writes these in kB of 1,024.
#[must_use]
pub fn field_bytes(text: &str, name: &str) -> Option<u64> {
    let kib: u64 = field(text, name)?.strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_cannot_break_a_line_or_a_terminal() {
        assert_eq!(escaped("a\"b\n\u{1b}[31m"), "a\\\"b\\n\\u{1b}[31m");
        assert_eq!(escaped("it's (x) \u{202e}y"), "it's (x) \\u{202e}y");
        assert_eq!(printable("say \"hi\"\t\\n"), "say \"hi\"\\t\\n");
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "MemTotalX:  1 kB\nMemTotal:   24680 kB\nThreads:\t7\n";
        assert_eq!(field_bytes(text, "MemTotal"), Some(24_680 * 1024));
        assert_eq!(field(text, "Threads"), Some("7"));
        assert_eq!(field_bytes(text, "Threads"), None, "not in kB");
        assert_eq!(field(text, "Mem"), None);
    }

    proptest! {
        #[test]
        fn what_is_escaped_holds_no_control_character(text in any::<String>()) {
            prop_assert!(!escaped(&text).chars().any(char::is_control));
            prop_assert!(!printable(&text).chars().any(char::is_control));
        }

        #[test]
        fn any_text_is_looked_through(text in any::<String>(), name in ".{0,4}") {
            let _ = field_bytes(&text, &name);
        }
    }
}
