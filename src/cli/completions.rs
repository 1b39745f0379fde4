//! `hift completions`

use clap_complete::{Shell, generate};

use super::{Failure, print};

const WHERE: &str = "\
Where shells look:
  bash  hift completions bash > ~/.local/share/bash-completion/completions/hift
  zsh   hift completions zsh > _hift, in a folder of $fpath
  fish  hift completions fish > ~/.config/fish/completions/hift.fish";

#[derive(Debug, clap::Args)]
#[command(after_help = WHERE)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut super::command(), "hift", &mut script);
        Ok(print(&String::from_utf8_lossy(&script))?)
    }
}
