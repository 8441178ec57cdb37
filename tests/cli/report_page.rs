//! The page of a report in a browser.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::fixtures::probing::{Records, stdout};
use crate::fixtures::rights::lacking;
use crate::fixtures::{Server, sockscope};

/// What a browser made of a page.
struct Seen {
    /// Wider than the window it is in, at 360 px.
    overflow: usize,
    /// What it wrote to the console: errors, refused requests.
    console: Vec<String>,
    /// How many charts have an area, and how many lie within the window.
    charts: (usize, usize),
}

/// Puts the page into a frame of 360 px: no window of a desktop is so narrow.
fn framed(html: &str) -> String {
    let quoted = html.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        r#"<!doctype html><meta charset="utf-8"><iframe style="width:360px;height:800px;
        border:0" srcdoc="{quoted}"></iframe><p id="seen"></p><script>
        addEventListener("load", () => {{
            const page = document.querySelector("iframe").contentDocument;
            const root = page.documentElement;
            const boxes = [...page.querySelectorAll("svg.chart")]
                .map(chart => chart.getBoundingClientRect());
            document.getElementById("seen").textContent = "seen " + [
                Math.max(root.scrollWidth, page.body.scrollWidth) - root.clientWidth,
                boxes.filter(box => box.width > 100 && box.height > 50).length,
                boxes.filter(box => box.left >= 0 && box.right <= 360).length,
            ].join(" ") + " end";
        }});</script>"#
    )
}

/// Opens a page in headless Chromium; None where there is none.
fn look(dir: &Path, html: &str) -> Option<Seen> {
    let browser =
        ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
            let found =
                Command::new("sh").args(["-c", "command -v \"$0\"", name]).output();
            found.is_ok_and(|found| found.status.success())
        });
    let Some(browser) = browser else {
        lacking("chromium");
        return None;
    };
    let file = dir.join("frame.html");
    fs::write(&file, framed(html)).unwrap();
    let done = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--enable-logging=stderr", "--window-size=800,900", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("--timeout={}", Duration::from_secs(60).as_millis()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let text = stdout(&done, 0);
    let said = String::from_utf8_lossy(&done.stderr);
    let seen =
        text.split_once("\"seen\">seen ").and_then(|(_, rest)| rest.split_once(" end"));
    let seen = seen.unwrap_or_else(|| panic!("nothing was measured: {said}")).0;
    let numbers: Vec<usize> = seen.split(' ').map(|n| n.parse().unwrap()).collect();
    Some(Seen {
        overflow: numbers[0],
        console: said.lines().filter(|l| l.contains("CONSOLE")).map(Into::into).collect(),
        charts: (numbers[1], numbers[2]),
    })
}

#[test]
fn a_page_fits_a_phone_and_leaves_the_console_silent() {
    let dir = tempfile::tempdir().unwrap();
    // That both are seen where they are.
    let bad = "<!doctype html><meta http-equiv=Content-Security-Policy content=\"default-src \
        'none';style-src 'unsafe-inline'\"><div style=\"width:900px\">x</div><img src=\"http://127.0.0.1:9/x.png\">";
    let Some(seen) = look(dir.path(), bad) else { return };
    assert!(seen.overflow > 0 && !seen.console.is_empty(), "{} wide", seen.overflow);

    let server = Server::start(&["--never-accept", "--backlog", "64"]);
    let records = Records::new();
    let args = [&*server.address, "--max", "200", "--patience", "1s", "--hold", "100ms"];
    stdout(&records.probe(&args).output().unwrap(), 0);
    let html = fs::read_to_string(records.run().join("report.html")).unwrap();
    let seen = look(dir.path(), &html).unwrap();
    assert_eq!(seen.console, Vec::<String>::new());
    assert_eq!(seen.overflow, 0, "the page scrolls sideways at 360 px");
    let drawn = html.matches("<svg class=\"chart\"").count();
    assert!(drawn >= 5, "{drawn} charts");
    assert_eq!(seen.charts, (drawn, drawn));

    // So does a comparison, whose names are paths here.
    let run = records.run();
    let mut both = sockscope();
    both.arg("report").args([&run, &run]).args(["--format", "html"]);
    let html = stdout(&both.output().unwrap(), 0);
    assert!(html.contains("2 runs side by side"), "{html}");
    let seen = look(dir.path(), &html).unwrap();
    assert_eq!((seen.overflow, seen.console, seen.charts), (0, Vec::new(), (1, 1)));

    // So does that of a run that was cut off.
    fs::remove_file(run.join("run.json")).unwrap();
    let page = sockscope().arg("report").arg(&run).args(["--format", "html"]).output();
    let seen = look(dir.path(), &stdout(&page.unwrap(), 0)).unwrap();
    assert_eq!((seen.overflow, seen.console), (0, Vec::new()));
}
