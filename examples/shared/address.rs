//! Where an example listens: `--host` and `--port`, and a clear error when the port is taken. Some have a
//! place for what outlives them, too.

// Not every example needs all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io;
use std::process::exit;

/// An option with a value.
pub struct ValueOption {
    pub name: &'static str,
    /// What stands for its value in the help.
    pub value: &'static str,
    pub help: &'static str,
}

/// What the options with values were given, by name.
pub type Values = BTreeMap<&'static str, String>;

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
        Address::with_options(name, port, &[]).0
    }

    /// The same with more options.
    pub fn with_options(name: &str, port: u16, options: &[ValueOption]) -> (Address, Values) {
        let mut address = Address { host: "127.0.0.1".into(), port };
        let values = address.read(name, options, lexopt::Parser::from_env());
        let values = values.unwrap_or_else(|error| {
            eprintln!("{name}: {error}; see --help");
            exit(2);
        });
        (address, values)
    }

    fn read(
        &mut self,
        name: &str,
        options: &[ValueOption],
        mut args: lexopt::Parser,
    ) -> Result<Values, lexopt::Error> {
        use lexopt::prelude::*;
        let (default, mut values) = (self.port, Values::new());
        while let Some(arg) = args.next()? {
            match arg {
                Long("host") => self.host = args.value()?.string()?,
                Short('p') | Long("port") => self.port = args.value()?.parse()?,
                Short('h') | Long("help") => {
                    let usage = options.iter().map(|it| format!(" [--{} {}]", it.name, it.value));
                    let usage: String = usage.collect();
                    println!(
                        "Usage: {name} [--host HOST] [--port PORT]{usage}\n\n\
                         Listens on 127.0.0.1:{default} by default; port 0 is any free one."
                    );
                    options.iter().for_each(|it| println!("--{}: {}", it.name, it.help));
                    exit(0);
                }
                Long(given) => match options.iter().find(|option| option.name == given) {
                    Some(option) => drop(values.insert(option.name, args.value()?.string()?)),
                    None => return Err(arg.unexpected()),
                },
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(values)
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
