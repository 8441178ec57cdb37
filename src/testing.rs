//! What the unit tests share.
#![allow(clippy::print_stderr)] // a skipped test says so

use crate::host::ProcRoot;

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Called where a right or a tool is missing that a test needs: says so, and fails
/// under continuous integration (`CI=true`), where every test must run.
///
/// # Panics
/// With `CI=true`.
pub(crate) fn lacking(what: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "needs {what}");
    eprintln!("skipped: needs {what}");
}

/// A fixture tree with these files, and a root on it.
pub(crate) fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, ProcRoot) {
    let tree = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = tree.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let root = ProcRoot::new(tree.path());
    (tree, root)
}
