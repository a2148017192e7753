//! Standard error, for the log. A reader that stalls, such as a terminal that is stopped or a log driver
//! whose disk is full, costs lines and never holds up the server.
//!
//! A thread of its own would not be better: it would need a queue, and a crash would lose the lines in it,
//! which are those that say why.

use std::{
    io::{self, Write},
    mem,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use metrics::counter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::lock::lock;

/// What can be written at once without waiting if a pipe has room for anything: `PIPE_BUF` of Linux.
/// Other systems have less, and may wait for the rest.
const CHUNK: usize = 4096;
/// How long a line waits for its reader.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// After a wait, no line waits for this long: the log takes at most a tenth of the time of the server.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);

static STATE: Mutex<State> =
    Mutex::new(State { waited: None, lost: 0, is_torn: false, is_json: false });

struct State {
    /// The end of the last wait.
    waited: Option<Instant>,
    /// Lines that were lost since the last one that was written.
    lost: u64,
    /// Whether only the beginning of the last line was written.
    is_torn: bool,
    is_json: bool,
}

/// Sets the format of the line that says how many lines were lost.
pub fn set_json(is_json: bool) {
    lock(&STATE).is_json = is_json;
}

/// Writes whole lines to standard error, or drops them.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = lock(&STATE);
        if !state.is_ready() {
            state.lose();
            return Ok(line.len());
        }
        let before = state.before_next_line();
        for chunk in before.as_bytes().chunks(CHUNK).chain(line.chunks(CHUNK)) {
            if !state.is_ready() || io::stderr().write_all(chunk).is_err() {
                state.is_torn = true;
                state.lose();
                break;
            }
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

    /// Ends a line that was cut off, and says how many were lost.
    fn before_next_line(&mut self) -> String {
        let mut text = String::new();
        if mem::take(&mut self.is_torn) {
            text.push('\n');
        }
        let lost = mem::take(&mut self.lost);
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
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
    // What cannot be polled is written to: the write says what is wrong.
    poll(&mut fds, Some(&wait)).is_ok_and(|ready| ready > 0)
}
