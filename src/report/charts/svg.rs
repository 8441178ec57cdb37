//! SVG elements: what plotters drew, with colours that follow the reader's.

use std::fmt::Write as _;

/// The width of every chart, in its own units; one is a pixel where there is room.
pub(super) const WIDTH: u32 = 380;
/// The height of a chart over time.
pub(super) const HEIGHT: u32 = 225;

/// The colours of charts, for light and dark.
pub const STYLE: &str = include_str!("chart.css");

/// Text made safe inside an element.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\t' | '\n' => safe.push(c),
            // No XML can hold these.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                safe.push('\u{fffd}');
            }
            c => safe.push(c),
        }
    }
    safe
}

/// The element, to be put into a page.
pub(super) fn element(id: &str, title: &str, description: &str, content: &str) -> String {
    with_attributes(id, title, description, "", content)
}

/// A file.
pub(super) fn file(id: &str, title: &str, description: &str, content: &str) -> String {
    let content =
        format!("<style>{STYLE}\nsvg{{background:var(--paper)}}</style>{content}");
    let named = "xmlns=\"http://www.w3.org/2000/svg\" ";
    with_attributes(id, title, description, named, &content)
}

fn with_attributes(
    id: &str,
    title: &str,
    description: &str,
    more: &str,
    content: &str,
) -> String {
    let height = height_of(content);
    let (title, description) = (escaped(title), escaped(description));
    format!(
        "<svg {more}class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{title}</title>\
         <desc id=\"{id}-d\">{description}</desc>{content}</svg>\n"
    )
}

/// The height that the content says of itself in its first element.
fn height_of(content: &str) -> u32 {
    let said = content.split("data-height=\"").nth(1);
    said.and_then(|rest| rest.split('"').next()?.parse().ok()).unwrap_or(HEIGHT)
}

/// Wraps what was drawn, with its height.
pub(super) fn group(height: u32, content: &str) -> String {
    format!("<g data-height=\"{height}\">{content}</g>")
}

/// Colours that stand for classes until [`classed`] has put these in their place.
pub(super) mod ink {
    use plotters::style::RGBColor;

    /// Words and numbers.
    pub(in super::super) const TEXT: RGBColor = RGBColor(1, 0, 0);
    /// Axes.
    pub(in super::super) const AXIS: RGBColor = RGBColor(2, 0, 0);
    /// Grid lines.
    pub(in super::super) const GRID: RGBColor = RGBColor(3, 0, 0);
    /// A limit.
    pub(in super::super) const LIMIT: RGBColor = RGBColor(4, 0, 0);

    /// The series of this number, from 0 on.
    pub(in super::super) fn series(number: usize) -> RGBColor {
        RGBColor(16 + u8::try_from(number % 6).unwrap_or(0), 0, 0)
    }
}

/// What plotters drew on a canvas of this size, without its outer element, its colours
/// as classes.
pub(super) fn classed(drawn: &str) -> String {
    let inner = drawn.split_once('>').map_or("", |(_, rest)| rest);
    let inner = inner.trim().trim_end_matches("</svg>");
    let mut out = inner.replace(" opacity=\"1\"", "").replace(" fill=\"none\"", "");
    out = out.replace(" font-family=\"sans-serif\"", "").replace(" stroke=\"none\"", "");
    out = out.replace("\n</text>", "</text>").replace(">\n", ">");
    for (colour, class) in
        [("010000", "t"), ("020000", "a"), ("030000", "g"), ("040000", "l")]
    {
        out = out.replace(&format!("fill=\"#{colour}\""), &format!("class=\"{class}\""));
        out =
            out.replace(&format!("stroke=\"#{colour}\""), &format!("class=\"{class}\""));
    }
    for number in 0..6 {
        let colour = format!("{:02X}0000", 16 + number);
        out =
            out.replace(&format!("fill=\"#{colour}\""), &format!("class=\"f{number}\""));
        out = out
            .replace(&format!("stroke=\"#{colour}\""), &format!("class=\"s{number}\""));
    }
    out
}

/// Appends a word or a line of text.
pub(super) fn text(
    out: &mut String,
    x: i32,
    y: i32,
    class: &str,
    anchor: &str,
    words: &str,
) {
    let _ = write!(
        out,
        "<text x=\"{x}\" y=\"{y}\" class=\"{class}\" text-anchor=\"{anchor}\" \
         font-size=\"12\">{}</text>",
        escaped(words)
    );
}

/// About how wide text of this size is.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
pub(super) fn text_width(words: &str) -> i32 {
    words.chars().count() as i32 * 13 / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_its_element() {
        assert_eq!(
            escaped("a<b>&\"\u{0}\u{1b}é"),
            "a&lt;b&gt;&amp;&quot;\u{fffd}\u{fffd}é"
        );
        let made = element("x", "</title><script>", "d", "");
        assert!(!made.contains("<script>"), "{made}");
    }

    #[test]
    fn a_file_is_a_document_and_an_element_is_none() {
        let content = group(99, "<g/>");
        assert!(file("x", "t", "d", &content).starts_with("<svg xmlns="));
        assert!(!element("x", "t", "d", &content).contains("xmlns"));
        assert!(element("x", "t", "d", &content).contains("viewBox=\"0 0 380 99\""));
    }
}
