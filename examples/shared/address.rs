//! Where an example listens: `--host` and `--port`, and a clear error when the port is taken. Some have a
//! place for what outlives them, too.

// Not every example needs all of it.
#![allow(dead_code)]

use std::io;
use std::path::PathBuf;
use std::process::exit;

/// An option that names a file or a directory.
pub struct PathOption {
    pub name: &'static str,
    /// What stands for its value in the help.
    pub value: &'static str,
    pub help: &'static str,
}

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
        Address::with_path(name, port, None).0
    }

    /// The same with an option more, and what it was given.
    pub fn with_path(
        name: &str,
        port: u16,
        option: Option<PathOption>,
    ) -> (Address, Option<PathBuf>) {
        let mut address = Address { host: "127.0.0.1".into(), port };
        let path = address.read(name, option.as_ref(), lexopt::Parser::from_env());
        let path = path.unwrap_or_else(|error| {
            eprintln!("{name}: {error}; see --help");
            exit(2);
        });
        (address, path)
    }

    fn read(
        &mut self,
        name: &str,
        option: Option<&PathOption>,
        mut args: lexopt::Parser,
    ) -> Result<Option<PathBuf>, lexopt::Error> {
        use lexopt::prelude::*;
        let (default, mut path) = (self.port, None);
        while let Some(arg) = args.next()? {
            match arg {
                Long("host") => self.host = args.value()?.string()?,
                Short('p') | Long("port") => self.port = args.value()?.parse()?,
                Short('h') | Long("help") => {
                    let (usage, help) = match option {
                        Some(PathOption { name, value, help }) => {
                            (format!(" [--{name} {value}]"), format!("\n{help}"))
                        }
                        None => Default::default(),
                    };
                    println!(
                        "Usage: {name} [--host HOST] [--port PORT]{usage}\n\n\
                         Listens on 127.0.0.1:{default} by default; port 0 is any \
                         free one.{help}"
                    );
                    exit(0);
                }
                Long(given) if option.is_some_and(|option| option.name == given) => {
                    path = Some(args.value()?.into());
                }
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(path)
    }

    /// What to bind to.
    pub fn pair(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Ends the program with an error that says what to do.
    pub fn fail(name: &str, error: &dyn std::error::Error) -> ! {
        eprintln!("{name}: {error}");
        exit(1);
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
