//! Completions in the shells themselves: what a person gets who types a part of a command and presses
//! the tabulator.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command as AsyncCommand},
    time::timeout,
};

use crate::harness::*;

/// What is typed, and the arguments that the command then has.
const TYPED: [(&str, &str); 6] = [
    ("passbook acc\t", "account"),
    ("passbook account ver\t", "account verify"),
    ("passbook hold cap\t", "hold capture"),
    ("passbook deposit --desc\t", "deposit --description"),
    ("passbook account list --sta\t", "account list --state"),
    ("passbook completions fi\t", "completions fish"),
];

/// Whether this program can be run. If not, the test is reported as skipped.
fn has(program: &str, package: &str) -> bool {
    let run = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    if run.is_err() {
        skipped(&format!("{program} is not installed: apt-get install {package}"));
    }
    run.is_ok()
}

/// A folder with the script for this shell, under this name.
async fn folder_with_script(shell: &str, name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let script = passbook(&["completions", shell]).await.must_succeed().stdout;
    std::fs::write(folder.path().join(name), script).expect("written");
    folder
}

/// An interactive shell in a terminal, which `script` of util-linux opens.
struct Terminal {
    child: Child,
    output: String,
}

impl Terminal {
    fn open(command: &str, home: &Path) -> Self {
        let mut script = AsyncCommand::new("script");
        script.args(["--quiet", "--flush", "--return", "--command", command, "/dev/null"]);
        script.env("HOME", home).env("TERM", "xterm").env("PS1", "$ ").kill_on_drop(true);
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self { child: script.spawn().expect("script is there"), output: String::new() }
    }

    async fn enter(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        input.write_all(text.as_bytes()).await.expect("written");
        input.flush().await.expect("flushed");
    }

    /// Waits until the terminal shows this text.
    async fn shows(&mut self, text: &str) {
        let output = self.child.stdout.as_mut().expect("a pipe");
        let mut bytes = [0; 4096];
        while !self.output.contains(text) {
            let reading = timeout(PATIENCE, output.read(&mut bytes)).await;
            let count = reading.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.output));
            let count = count.expect("read");
            assert!(count > 0, "no {text:?} in {:?}", self.output);
            self.output += &String::from_utf8_lossy(&bytes[..count]);
        }
    }

    /// Sets the completion up, and types all of [`TYPED`]. Instead of the program, a function shows the
    /// arguments.
    async fn check(&mut self, set_up: &str) {
        self.enter(&format!("{set_up}\n")).await;
        self.enter("passbook() { echo \"with <$*>\"; }\n").await;
        // The terminal also shows what is typed, which must not be taken for the output.
        self.enter("echo is rea''dy\n").await;
        self.shows("is ready").await;
        for (keys, arguments) in TYPED {
            self.enter(keys).await;
            self.enter("\n").await;
            self.shows(&format!("with <{arguments}>")).await;
            self.output.clear();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_completes_commands_flags_and_values() {
    if !has("script", "bsdutils") || !has("bash", "bash") {
        return;
    }
    let folder = folder_with_script("bash", "passbook").await;
    let mut terminal = Terminal::open("bash --noprofile --norc -i", folder.path());
    terminal.check("source ~/passbook").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zsh_completes_commands_flags_and_values() {
    if !has("script", "bsdutils") || !has("zsh", "zsh") {
        return;
    }
    let folder = folder_with_script("zsh", "_passbook").await;
    let mut terminal = Terminal::open("zsh -f -i", folder.path());
    terminal.check("fpath=(~ $fpath); autoload -Uz compinit; compinit -u -d ~/dump").await;
}

/// fish has a command that does what the tabulator does. Its script has no values of arguments that are
/// no flags (clap_complete 4.6), so the last one is left out.
#[tokio::test(flavor = "multi_thread")]
async fn fish_completes_commands_and_flags() {
    if !has("fish", "fish") {
        return;
    }
    let folder = folder_with_script("fish", "passbook.fish").await;
    for (keys, arguments) in &TYPED[..TYPED.len() - 1] {
        let command = format!("source ~/passbook.fish; complete -C '{}'", keys.trim_end());
        let mut fish = AsyncCommand::new("fish");
        fish.args(["--no-config", "--command", &command]).env("HOME", folder.path());
        let output = timeout(PATIENCE, fish.output()).await.expect("in time").expect("fish runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let words: Vec<_> = text.lines().filter_map(|line| line.split('\t').next()).collect();
        let last = arguments.rsplit(' ').next().expect("a word");
        assert_eq!(words, [last], "{keys:?}: {output:?}");
    }
}
