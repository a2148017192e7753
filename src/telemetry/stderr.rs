//! Standard error, for the log. A reader that stalls, such as a terminal that is stopped or a log driver
//! whose disk is full, costs lines and never holds up the server.
//!
//! A thread of its own would not be better: it would need a queue, and a crash would lose the lines in it,
//! which are those that say why.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use metrics::counter;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

use crate::lock::lock;

/// What can be written at once without waiting if a pipe or a socket has room for anything: `PIPE_BUF`
/// of Linux.
const CHUNK: usize = 4096;
/// How long a line waits for its reader.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// After a wait, no line waits for this long: the log takes at most a tenth of the time of the server.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);

static STATE: Mutex<State> =
    Mutex::new(State { terminal: None, waited: None, lost: 0, is_torn: false, is_json: false });

struct State {
    /// Standard error as a terminal, opened once more so that writing to it never waits: a terminal says
    /// that there is room when there is less than a line needs. The flag of what this process was given
    /// would be that of other processes, too.
    terminal: Option<File>,
    /// The end of the last wait.
    waited: Option<Instant>,
    /// Lines that were lost since the last one that was written.
    lost: u64,
    /// Whether only the beginning of the last line was written.
    is_torn: bool,
    is_json: bool,
}

/// Prepares for lines of this format.
pub fn start(is_json: bool) {
    let mut state = lock(&STATE);
    state.is_json = is_json;
    if io::stderr().is_terminal() {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(flags.bits().cast_signed());
        // Without it, a terminal that stalls holds up the server, as it does most programs.
        state.terminal = options.open("/dev/fd/2").ok();
    }
}

/// Writes whole lines to standard error, or drops them.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = lock(&STATE);
        let before = state.before_next_line();
        if !state.write(before.as_bytes()) {
            state.lose();
            return Ok(line.len());
        }
        (state.lost, state.is_torn) = (0, false);
        if !state.write(line) {
            state.lose();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    /// Whether a chunk can be written without waiting. Waits for that now and then.
    fn is_ready(&mut self) -> bool {
        if is_writable(Duration::ZERO) {
            return true;
        } else if self.waited.is_some_and(|waited| waited.elapsed() < WAIT_INTERVAL) {
            return false;
        }
        let is_writable = is_writable(WAIT_MAX);
        self.waited = Some(Instant::now());
        is_writable
    }

    fn lose(&mut self) {
        self.lost += 1;
        counter!("passbook_log_lines_lost_total").increment(1);
    }

    /// Writes a text, and returns whether all of it was written.
    fn write(&mut self, mut text: &[u8]) -> bool {
        while !text.is_empty() {
            if !self.is_ready() {
                return false;
            }
            let chunk = &text[..text.len().min(CHUNK)];
            let written = match &mut self.terminal {
                Some(terminal) => terminal.write(chunk),
                None => io::stderr().write(chunk),
            };
            match written {
                Ok(count @ 1..) => text = &text[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return false,
            }
            self.is_torn = !text.is_empty();
        }
        true
    }

    /// Ends a line that was cut off, and says how many were lost.
    fn before_next_line(&self) -> String {
        let mut text = String::new();
        if self.is_torn {
            text.push('\n');
        }
        let lost = self.lost;
        if lost > 0 {
            let time = humantime::format_rfc3339_micros(SystemTime::now());
            let message = "lines of the log were lost, because nobody read them";
            text += &match self.is_json {
                true => format!(
                    "{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{message}\",\
                     \"lines\":{lost},\"target\":\"{}\"}}\n",
                    module_path!()
                ),
                false => format!("{time}  WARN {}: {message} lines={lost}\n", module_path!()),
            };
        }
        text
    }
}

fn is_writable(wait: Duration) -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
    // What cannot be polled is written to: the write says what is wrong.
    poll(&mut fds, Some(&wait)).is_ok_and(|ready| ready > 0)
}
