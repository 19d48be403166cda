//! What a process of a test says on its standard output.

use std::io::Write;

/// In one piece, so that lines of several threads don't mix.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Who listened is gone: so are we, soon.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}
