//! `sockscope completions` and `sockscope man`.

use crate::fixtures::sockscope;

fn printed(args: &[&str]) -> (Option<i32>, String, String) {
    let done = sockscope().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[test]
fn each_shell_has_completions_for_each_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, text, _) = printed(&["completions", shell]);
        assert_eq!(code, Some(0), "{shell}");
        for word in ["probe", "backlog", "sockets", "limits", "report", "authorized"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
    let (code, _, says) = printed(&["completions", "tcsh"]);
    assert_eq!(code, Some(2));
    assert!(says.contains("bash") && says.lines().count() == 1, "{says}");
}

/// bash(1) takes them, and completes a command by them.
#[test]
fn bash_completes_by_them() {
    let (_, text, _) = printed(&["completions", "bash"]);
    let script = format!(
        "{text}\nCOMP_WORDS=(sockscope lim) COMP_CWORD=1\n\
         _sockscope sockscope lim sockscope\necho \"${{COMPREPLY[@]}}\""
    );
    let done = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    let says = String::from_utf8_lossy(&done.stdout);
    assert_eq!(says.trim(), "limits", "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn there_is_a_page_of_the_program_and_of_each_command() {
    let (code, page, _) = printed(&["man"]);
    assert_eq!(code, Some(0));
    assert!(page.contains(".TH sockscope 1") && page.contains("probe"), "{page}");
    assert!(!page.contains("watchdog"), "{page}");
    for command in ["probe", "backlog", "sockets", "limits", "report", "serve"] {
        let (code, page, _) = printed(&["man", command]);
        assert_eq!(code, Some(0), "{command}");
        assert!(page.contains(&format!(".TH sockscope-{command} 1")), "{page}");
    }
    for name in ["prob", "watchdog"] {
        let (code, _, says) = printed(&["man", name]);
        assert_eq!(code, Some(2), "{name}");
        assert!(says.contains("the commands are probe, backlog"), "{says}");
    }
}
