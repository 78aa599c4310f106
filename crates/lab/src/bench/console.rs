//! What the driver in the guest says on the console, and when: markers become times.
//!
//! ```text
//!   @ready                      the guest is up
//!   @begin NAME TURN            turn 0 warms up and is not counted
//!   @end NAME TURN STATUS WORDS the words are the workload's answer, the same on every system
//!   @done
//! ```

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Lines of the console that an error shows.
const SHOWN_LINES: usize = 6;

/// One line of the driver's.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Marker {
    Ready,
    Begin { name: String, turn: u32 },
    End { name: String, turn: u32, status: u32, answer: String },
    Done,
}

/// The marker in a line of the console, if there is one: the kernel may have begun the line with words of its own.
fn parse(line: &str) -> Option<Marker> {
    let mut words = line[line.find('@')?..].split_whitespace();
    match words.next()? {
        "@ready" => Some(Marker::Ready),
        "@begin" => Some(Marker::Begin { name: words.next()?.into(), turn: words.next()?.parse().ok()? }),
        "@end" => Some(Marker::End {
            name: words.next()?.into(),
            turn: words.next()?.parse().ok()?,
            status: words.next()?.parse().ok()?,
            answer: words.collect::<Vec<_>>().join(" "),
        }),
        "@done" => Some(Marker::Done),
        _ => None,
    }
}

/// What one boot of one system gave.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pass {
    /// Seconds from the start of the process until the guest was up.
    pub boot_s: Option<f64>,
    /// Seconds of each run, by workload.
    pub times_s: BTreeMap<String, Vec<f64>>,
    /// What each workload answered.
    pub answers: BTreeMap<String, String>,
    /// Workloads that failed, and how.
    pub faults: Vec<String>,
}

/// The pass, while it goes on.
#[derive(Debug, Default)]
struct Listener {
    pass: Pass,
    begun: Option<(String, u32, f64)>,
}

impl Listener {
    /// Takes a line that came so many seconds after the start; whether it was the last.
    fn handle_line(&mut self, at_s: f64, line: &str) -> Result<bool> {
        match parse(line) {
            None => {}
            Some(Marker::Ready) => self.pass.boot_s = Some(at_s),
            Some(Marker::Begin { name, turn }) => self.begun = Some((name, turn, at_s)),
            Some(Marker::End { name, turn, status, answer }) => {
                let begun = self.begun.take().filter(|(n, t, _)| *n == name && *t == turn);
                let (.., begun_s) = begun.with_context(|| format!("{name} ends and did not begin"))?;
                self.pass.note(&name, turn, status, answer, at_s - begun_s);
            }
            Some(Marker::Done) => return Ok(true),
        }
        Ok(false)
    }
}

impl Pass {
    /// One run has ended.
    pub fn note(&mut self, name: &str, turn: u32, status: u32, answer: String, seconds: f64) {
        if status != 0 || answer.is_empty() {
            self.faults.push(format!("{name} ended with status {status} and said {answer:?}"));
            return;
        }
        let first = self.answers.entry(name.into()).or_insert_with(|| answer.clone());
        if *first != answer {
            self.faults.push(format!("{name} answered {first:?} and then {answer:?}"));
        }
        if turn > 0 {
            self.times_s.entry(name.into()).or_default().push(seconds);
        }
    }
}

/// Listens to a console until the driver is done. No line may take longer than `patience`.
pub fn listen(console: impl Read + Send + 'static, started: Instant, patience: Duration) -> Result<Pass> {
    let (sender, lines) = channel();
    std::thread::Builder::new().name("console".into()).spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while console.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            line.clear();
            if sender.send((started.elapsed().as_secs_f64(), text)).is_err() {
                break;
            }
        }
    })?;
    let mut listener = Listener::default();
    let mut last = Vec::new();
    loop {
        match lines.recv_timeout(patience) {
            Ok((at_s, line)) => {
                if listener.handle_line(at_s, &line)? {
                    ensure!(listener.pass.boot_s.is_some(), "the guest said nothing of being ready");
                    return Ok(listener.pass);
                }
                last.push(line);
            }
            Err(error) => {
                let shown = last[last.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
                let what = match error {
                    RecvTimeoutError::Timeout => format!("nothing was heard for {} s", patience.as_secs()),
                    RecvTimeoutError::Disconnected => "it ended too early".into(),
                };
                bail!("{what}; the end of the console:\n  {shown}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALK: &str = "[    1.5] noise\nINIT: version 3.14 booting\r\n@ready\r\n@begin calls 0\r\n@end calls 0 0 ff\r\n\
                        @begin calls 1\r\n[ 9.9] late news @end calls 1 0 ff\r\n@begin gcc 0\n@end gcc 0 127\n@done\n";

    #[test]
    fn markers_are_found_in_what_else_a_console_says() {
        assert_eq!(parse("@ready"), Some(Marker::Ready));
        assert_eq!(parse("x @begin fork 2"), Some(Marker::Begin { name: "fork".into(), turn: 2 }));
        let end = Marker::End { name: "sqlite".into(), turn: 1, status: 0, answer: "off 7|8".into() };
        assert_eq!(parse("@end sqlite 1 0 off 7|8"), Some(end));
        for noise in ["", "root@pollux:~#", "@begin", "@begin fork", "@begin fork x", "@end fork 1", "@other"]
        {
            assert_eq!(parse(noise), None, "{noise}");
        }
    }

    #[test]
    fn the_warm_up_is_not_counted_and_a_failure_is_told() {
        let mut listener = Listener::default();
        let mut done = false;
        for (at, line) in TALK.lines().enumerate() {
            done = listener.handle_line(at as f64, line).expect("in order");
        }
        assert!(done);
        let pass = listener.pass;
        assert_eq!(pass.boot_s, Some(2.0));
        assert_eq!(pass.times_s, BTreeMap::from([("calls".into(), vec![1.0])]));
        assert_eq!(pass.answers["calls"], "ff");
        assert_eq!(pass.faults.len(), 1);
        assert!(pass.faults[0].contains("gcc") && pass.faults[0].contains("127"), "{:?}", pass.faults);
    }

    #[test]
    fn an_end_without_a_beginning_and_a_changed_answer_are_faults() {
        assert!(Listener::default().handle_line(0.0, "@end fork 1 0 ff").is_err());
        let mut pass = Pass::default();
        pass.note("fork", 1, 0, "a".into(), 1.0);
        pass.note("fork", 2, 0, "b".into(), 1.0);
        assert_eq!(pass.faults.len(), 1);
    }

    #[test]
    fn a_console_that_ends_or_falls_silent_is_an_error_that_shows_its_end() {
        let patience = Duration::from_secs(5);
        assert!(listen(TALK.as_bytes(), Instant::now(), patience).is_ok());
        let error = listen("Kernel panic\n".as_bytes(), Instant::now(), patience).expect_err("too early");
        assert!(error.to_string().contains("Kernel panic"), "{error}");
        let (_writer, reader) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let error = listen(reader, Instant::now(), Duration::from_millis(10)).expect_err("silent");
        assert!(error.to_string().contains("nothing was heard"), "{error}");
    }
}
