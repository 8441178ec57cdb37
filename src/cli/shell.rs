//! `sockscope completions` and `sockscope man`: what a shell and man(1) take from the
//! program itself, so that neither is ever older than it.

use std::io::{self, Write};

use clap::Command;
use clap_complete::Shell;

use super::exit::{Exit, Failure};

/// Print the completions of a shell
///
/// bash: sockscope completions bash > ~/.local/share/bash-completion/completions/sockscope
/// zsh: sockscope completions zsh > ~/.zfunc/_sockscope (a folder of $fpath)
/// fish: sockscope completions fish > ~/.config/fish/completions/sockscope.fish
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Print a manual page: sockscope man probe | man -l -
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Of which command [default: of sockscope as a whole]
    command: Option<String>,
}

/// Prints the completions.
pub(super) fn completions(
    args: &CompletionsArgs,
    mut program: Command,
) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut program, "sockscope", &mut text);
    print(&text)
}

/// Prints the page.
pub(super) fn man(args: &ManArgs, program: Command) -> Result<Exit, Failure> {
    let mut program = program.name("sockscope");
    program.build();
    let page = match &args.command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).filter(|c| !c.is_hide_set());
            let Some(found) = found.cloned() else {
                let names = program.get_subcommands().filter(|c| !c.is_hide_set());
                let names: Vec<_> = names.map(Command::get_name).collect();
                let names = names.join(", ");
                return Err(Failure::usage(format!(
                    "there is no command {name}; the commands are {names}"
                )));
            };
            let title = format!("sockscope-{}", found.get_name());
            found.display_name(title)
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(Failure::lacking)?;
    print(&text)
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &[u8]) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::lacking(error))
        }
        _ => Ok(Exit::Done),
    }
}
