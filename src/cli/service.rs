//! `hift service`

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, print, read};
use crate::problem::{Fault, Problem};

/// The arguments. What is printed needs no environment: all paths are whole.
#[derive(Debug, clap::Args)]
pub struct Service {
    /// The pipeline file
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// How often to call it: a call that has nothing to do, or finds another one at work, ends at once
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10min")]
    every: Duration,
    /// The run directory; `runs/NAME` in the current folder by default
    #[arg(long, value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// A folder on the disk for `states = disk` and `weights = disk`; the run directory by default
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    scratch: Option<PathBuf>,
    /// End each call in time, with a checkpoint
    #[arg(long, value_name = "TIME")]
    max_time: Option<String>,
    /// A line for a crontab instead of units for systemd
    #[arg(long)]
    cron: bool,
}

impl Service {
    pub fn run(self) -> Result<(), Failure> {
        read(&self.file)?;
        if let Some(time) = &self.max_time
            && let Err(error) = humantime::parse_duration(time)
        {
            let text = format!("`--max-time {time}` is no time: {error}");
            return Err(Problem::of(Fault::Usage, "hift::cli::service", text)
                .help("write `--max-time 5h`")
                .into());
        }
        let whole = |path: &Path| {
            std::path::absolute(path).map_err(|error| {
                let text = format!("{} has no whole path: {error}", path.display());
                Problem::of(Fault::Missing, "hift::cli::service", text).help("name it from the root on")
            })
        };
        let (file, here) = (whole(&self.file)?, whole(Path::new("."))?);
        let name = self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let directory = whole(&self.dir.clone().unwrap_or_else(|| Path::new("runs").join(&name)))?;
        let program = std::env::current_exe().map_err(|error| {
            let text = format!("the path of this program is not known: {error}");
            Problem::of(Fault::Failed, "hift::cli::service", text)
        })?;
        let mut words = vec![program.display().to_string(), "run".to_string(), file.display().to_string()];
        words.extend(["--dir".to_string(), directory.display().to_string()]);
        if let Some(scratch) = &self.scratch {
            words.extend(["--scratch".to_string(), whole(scratch)?.display().to_string()]);
        }
        words.extend(self.max_time.iter().flat_map(|time| ["--max-time".to_string(), time.clone()]));
        let text = match self.cron {
            true => crontab(&words, &here, self.every)?,
            false => units(&name, &words, &here, self.every),
        };
        Ok(print(&text)?)
    }
}

/// A oneshot unit and the timer that starts it.
fn units(name: &str, words: &[String], folder: &Path, every: Duration) -> String {
    let command: Vec<String> = words.iter().map(|word| systemd(word)).collect();
    let unit: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let shown = |path: &str| path.replace('%', "%%");
    format!(
        "# ~/.config/systemd/user/hift-{unit}.service\n\
         [Unit]\n\
         Description=hift: {}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         WorkingDirectory={}\n\
         ExecStart={}\n\
         # 75: interrupted after a checkpoint, or another call is at work.\n\
         SuccessExitStatus=75\n\
         # SIGTERM asks for a checkpoint; it may take a while to write.\n\
         KillSignal=SIGTERM\n\
         TimeoutStopSec=15min\n\
         TimeoutStartSec=infinity\n\
         \n\
         # ~/.config/systemd/user/hift-{unit}.timer\n\
         [Unit]\n\
         Description=hift: {}, until it is done\n\
         \n\
         [Timer]\n\
         OnActiveSec=10s\n\
         OnUnitInactiveSec={}s\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n\
         \n\
         # systemctl --user daemon-reload && systemctl --user enable --now hift-{unit}.timer\n\
         # loginctl enable-linger    # so that it runs while you are logged out\n\
         # journalctl --user -u hift-{unit}\n",
        shown(name),
        shown(&folder.display().to_string()),
        command.join(" "),
        shown(name),
        every.as_secs().max(1),
    )
}

/// A word of a command as systemd reads it.
fn systemd(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=%$+:@,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// A line of a crontab. Cron mails what a command says, and a run says nothing unless something is wrong.
fn crontab(words: &[String], folder: &Path, every: Duration) -> Result<String, Problem> {
    let minutes = every.as_secs().div_ceil(60).max(1);
    let when = match minutes {
        1 => "* * * * *".to_string(),
        2..60 if 60 % minutes == 0 => format!("*/{minutes} * * * *"),
        60 => "0 * * * *".to_string(),
        61..1440 if minutes.is_multiple_of(60) && 24_u64.is_multiple_of(minutes / 60) => {
            format!("0 */{} * * *", minutes / 60)
        }
        1440 => "0 0 * * *".to_string(),
        _ => {
            let text = format!("cron cannot call every {minutes} minutes");
            return Err(Problem::of(Fault::Usage, "hift::cli::service", text)
                .help("write `--every` with minutes that divide an hour, hours that divide a day, or 24h"));
        }
    };
    let command: Vec<String> = words.iter().map(|word| shell(word)).collect();
    let folder = shell(&folder.display().to_string());
    // In a crontab, % ends the command.
    let line = format!("cd {folder} && {}", command.join(" ")).replace('%', "\\%");
    Ok(format!("{when} {line}\n"))
}

/// A word as a shell reads it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=%+:@,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_each_reader_wants() {
        assert_eq!(systemd("/a/b.hift"), "/a/b.hift");
        assert_eq!(systemd("/a b/50%"), "\"/a b/50%%\"");
        assert_eq!(systemd("$HOME"), "$$HOME");
        assert_eq!(shell("/a/b.hift"), "/a/b.hift");
        assert_eq!(shell("/it's"), "'/it'\\''s'");
    }

    #[test]
    fn a_crontab_knows_some_intervals_only() {
        let check = |minutes: u64, expected: Option<&str>| {
            let words = ["/bin/hift".to_string(), "run".to_string(), "/50%/p.hift".to_string()];
            let line = crontab(&words, Path::new("/w"), Duration::from_secs(60 * minutes)).ok();
            let expected = expected.map(|when| format!("{when} cd /w && /bin/hift run /50\\%/p.hift\n"));
            assert_eq!(line, expected);
        };
        check(1, Some("* * * * *"));
        check(10, Some("*/10 * * * *"));
        check(60, Some("0 * * * *"));
        check(240, Some("0 */4 * * *"));
        check(1440, Some("0 0 * * *"));
        check(7, None);
        check(90, None);
    }
}
