//! The demo is a check, not a show: it ends well only if everything was as promised, and leaves nothing behind.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::process::program;

const LONGEST: Duration = Duration::from_secs(60);

/// A demo under way in a folder of its own; killed when dropped.
struct Demo {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    dir: tempfile::TempDir,
}

impl Demo {
    fn start(args: &[&str]) -> Demo {
        let dir = tempfile::tempdir().unwrap();
        let mut command = program(dir.path());
        // Settings of the caller do not reach the demo's server.
        command.arg("demo").args(args).env("TMPDIR", dir.path()).env("VESTNIK__NO__SUCH", "1");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Demo { child, out, dir }
    }

    /// Reads up to the line that holds `word`.
    fn read_until(&mut self, word: &str) -> String {
        let mut text = String::new();
        while !text.contains(word) {
            assert_ne!(self.out.read_line(&mut text).unwrap(), 0, "it ended before it said {word}: {text}");
        }
        text
    }

    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// What it said from here on, and its exit code; nothing of it is left.
    fn end(mut self, addresses: &[String]) -> (String, i32) {
        let deadline = Instant::now() + LONGEST;
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        assert!(Instant::now() < deadline, "it took too long");
        for address in addresses {
            // A process that was killed may take a moment to let go of its port.
            while TcpStream::connect(address).is_ok() {
                assert!(Instant::now() < deadline, "{address} still answers");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let left: Vec<_> = std::fs::read_dir(self.dir.path()).unwrap().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        (text, code)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses in its first lines.
fn addresses(text: &str) -> Vec<String> {
    let urls = text.split_whitespace().filter_map(|word| word.strip_prefix("http://"));
    urls.map(|address| address.split('/').next().unwrap().to_owned()).collect()
}

#[test]
fn everything_is_as_promised() {
    let mut demo = Demo::start(&[]);
    let addresses = addresses(&demo.read_until("simulator  http://"));
    let (text, code) = demo.end(&addresses);
    assert_eq!(code, 0, "{text}");
    for said in [
        "UCS-2, 1 part",
        "│ Subject  Заказ №1042 готов",
        "│ Attached Заказ 1042",
        "uncertain",
        "FLAGGED",
        "lost 0",
        "1000 of 1000 ended",
        "accepted 1000 = sent",
        "twice 0, lost 0",
        "twice and silent 0",
        "the books balance",
        "All was as promised.",
    ] {
        assert!(text.contains(said), "it does not say {said:?}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "colour is for terminals");
}

#[test]
fn interrupted_it_leaves_no_process_and_no_folder() {
    let mut demo = Demo::start(&[]);
    let addresses = addresses(&demo.read_until("simulator  http://"));
    assert_eq!(addresses.len(), 2);
    demo.interrupt();
    let (text, code) = demo.end(&addresses);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("interrupted"), "{text}");
}

#[test]
fn kept_it_runs_until_it_is_told_to_stop() {
    let mut demo = Demo::start(&["--keep"]);
    let text = demo.read_until("Ctrl-C stops both");
    let addresses = addresses(text.split("Both go on running").nth(1).unwrap());
    for address in &addresses {
        TcpStream::connect(address).unwrap();
    }
    demo.interrupt();
    let (text, code) = demo.end(&addresses);
    assert_eq!(code, 0, "{text}");
}
