//! Into the background: the shell gets its prompt back when the mount is ready, or a message and a
//! failure when it is not.
//!
//! The process forks twice, before it has any thread: the grandchild is in a session of its own that
//! it does not lead, so no terminal can become its own again. It tells the process that the shell
//! waits for how things go, over a pipe; once the mount is ready it lets go of the standard streams,
//! of all else that the shell had open, and of the working directory, and the shell's process ends.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, fork, pipe2, setsid};
use serde::{Deserialize, Serialize};

use crate::mount::Launcher;

/// The shell does not wait longer: what takes so long never comes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
enum Message {
    Started { pid: i32 },
    Notice(String),
    Ready(String),
    Failed(String),
}

/// Runs `work`, which is to bring `what`, in the background. Returns, with the exit status, in the process
/// that the shell waits for, and in the one that did the work.
pub fn run(what: &str, work: impl FnOnce(&dyn Launcher) -> Result<(), String>) -> ExitCode {
    match start(what, work) {
        Ok(status) => status,
        Err(error) => failed(&format!("cannot go to the background: {error}")),
    }
}

fn start(
    what: &str,
    work: impl FnOnce(&dyn Launcher) -> Result<(), String>,
) -> nix::Result<ExitCode> {
    let inherited = inherited();
    // Not for programs that are started later, such as fusermount3.
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: there is one thread, so the child can do whatever the parent could.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        drop(writer);
        let status = watch(File::from(reader), what);
        let _ = nix::sys::wait::waitpid(child, None);
        return Ok(status);
    }
    drop(reader);
    setsid()?;
    // SAFETY: as above.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        // No destructors run, and of the first process nothing is buffered that this could write, too.
        std::process::exit(0);
    }
    let shell = Shell {
        pipe: File::from(writer),
        inherited,
    };
    let pid = std::process::id().cast_signed();
    let _ = shell.send(&Message::Started { pid });
    Ok(match work(&shell) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = shell.send(&Message::Failed(message));
            ExitCode::FAILURE
        }
    })
}

/// The way from the grandchild to the shell.
struct Shell {
    pipe: File,
    inherited: Vec<RawFd>,
}

/// What the shell had open beyond the standard streams: a lock that it holds, its end of a pipe. To be called
/// before this process opens anything.
fn inherited() -> Vec<RawFd> {
    let all = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<RawFd> = numbers.filter(|number| *number > 2).collect();
    // One of them was the directory.
    numbers.retain(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok());
    numbers
}

impl Shell {
    fn send(&self, message: &Message) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        (&self.pipe).write_all(&line)
    }
}

impl Launcher for Shell {
    fn notice(&self, text: &str) {
        let _ = self.send(&Message::Notice(text.to_owned()));
    }

    fn waits(&self) -> bool {
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::empty())];
        // Of the end to write to, nothing is told but that nobody reads.
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    fn ready(&self, greeting: &str) -> std::io::Result<()> {
        // Until now it may have been a login (`--token-file <(...)`), and the shell goes on with the message.
        for number in &self.inherited {
            let _ = nix::unistd::close(*number);
        }
        let message = Message::Ready(greeting.to_owned());
        // If the shell's process was interrupted, nobody wants this mount any more.
        self.send(&message)?;
        std::env::set_current_dir("/")?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        nix::unistd::dup2_stdin(&null)?;
        nix::unistd::dup2_stdout(&null)?;
        nix::unistd::dup2_stderr(&null)?;
        Ok(())
    }
}

/// Waits for what the grandchild, which is to bring `what`, tells; the exit status for the shell.
fn watch(pipe: File, what: &str) -> ExitCode {
    let begin = Instant::now();
    let mut worker = None;
    let mut lines = BufReader::new(pipe);
    loop {
        if lines.buffer().is_empty() {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(lines.get_ref().as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) => {
                    if let Some(pid) = worker {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                    }
                    let seconds = PATIENCE.as_secs();
                    return failed(&format!(
                        "gave up: no {what} within {seconds} s. Perhaps a file system does not answer, as that of \
                         the mountpoint, the login or the log; run it with --foreground and -v to see where it waits"
                    ));
                }
                Err(nix::errno::Errno::EINTR) => continue,
                _ => {}
            }
        }
        let mut line = String::new();
        match lines.read_line(&mut line) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(read) if read > 0 => match serde_json::from_str(&line) {
                Ok(Message::Started { pid }) => worker = Some(pid),
                Ok(Message::Notice(text)) => eprintln!("s3credmount: {text}"),
                Ok(Message::Ready(greeting)) => {
                    let _ = writeln!(std::io::stdout(), "{greeting}");
                    return ExitCode::SUCCESS;
                }
                Ok(Message::Failed(message)) => return failed(&message),
                Err(_) => return failed("the background process talks nonsense"),
            },
            _ => {
                return failed(
                    "the background process ended before the mount was ready; run it with \
                     --foreground to see why",
                );
            }
        }
    }
}

fn failed(message: &str) -> ExitCode {
    eprintln!("s3credmount: {message}");
    ExitCode::FAILURE
}
