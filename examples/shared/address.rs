//! Where an example listens: `--host` and `--port`, and a clear error when the port is taken.

use std::io;
use std::process::exit;

/// The address of a server.
#[derive(Clone, Debug)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Reads the command line. Ends the program after `--help`, and after an argument that it
    /// doesn't know.
    pub fn from_args(name: &str, port: u16) -> Address {
        let mut address = Address { host: "127.0.0.1".into(), port };
        if let Err(error) = address.read(name, lexopt::Parser::from_env()) {
            eprintln!("{name}: {error}; see --help");
            exit(2);
        }
        address
    }

    fn read(&mut self, name: &str, mut args: lexopt::Parser) -> Result<(), lexopt::Error> {
        use lexopt::prelude::*;
        let default = self.port;
        while let Some(arg) = args.next()? {
            match arg {
                Long("host") => self.host = args.value()?.string()?,
                Short('p') | Long("port") => self.port = args.value()?.parse()?,
                Short('h') | Long("help") => {
                    println!(
                        "Usage: {name} [--host HOST] [--port PORT]\n\n\
                         Listens on 127.0.0.1:{default} by default; port 0 is any \
                         free one."
                    );
                    exit(0);
                }
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(())
    }

    /// What to bind to.
    pub fn pair(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Ends the program with an error: why the address isn't available, and what to do.
    pub fn refused(&self, name: &str, error: &io::Error) -> ! {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there; choose another --port",
            io::ErrorKind::PermissionDenied => "choose a --port of 1024 or more",
            _ => "choose a --host of this machine",
        };
        eprintln!("{name}: can't listen on {}:{}: {error}; {advice}", self.host, self.port);
        exit(1);
    }
}
