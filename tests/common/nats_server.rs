//! NATS servers of a test's own. They need the program: `NATS_SERVER` names it. Without that variable, the
//! tests that need one say so and do nothing else; `tests/run` installs it and sets it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The path of nats-server, if this run is to use it.
pub fn program() -> Option<PathBuf> {
    let program = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    if program.is_none() {
        eprintln!("not tried: NATS_SERVER doesn't name the program nats-server");
    }
    program
}

/// One server, or several that form a cluster, on loopback. Killed with the test.
pub struct Servers {
    program: PathBuf,
    directory: tempfile::TempDir,
    config: String,
    ports: Vec<(u16, u16)>,
    running: Vec<Option<Child>>,
}

impl Servers {
    pub fn start(count: usize) -> Option<Self> {
        Servers::start_with(count, "")
    }

    /// With more in their configuration.
    pub fn start_with(count: usize, config: &str) -> Option<Self> {
        let program = program()?;
        let directory = tempfile::tempdir().expect("there is room");
        // Held until all are chosen, so that they differ.
        let held: Vec<TcpListener> =
            (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let port = |at: usize| held[at].local_addr().expect("it is bound").port();
        let ports = (0..count).map(|n| (port(2 * n), port(2 * n + 1))).collect();
        drop(held);
        let running = (0..count).map(|_| None).collect();
        let config = config.to_string();
        let mut servers = Servers { program, directory, config, ports, running };
        (0..count).for_each(|n| servers.start_one(n));
        Some(servers)
    }

    pub fn start_one(&mut self, n: usize) {
        let (port, route) = self.ports[n];
        let mut config = format!(
            "server_name: n{n}\nlisten: \"127.0.0.1:{port}\"\n\
             jetstream: {{store_dir: {:?}, sync_interval: always, max_file: 200MB}}\n",
            self.directory.path().join(n.to_string()),
        );
        if self.ports.len() > 1 {
            let routes: Vec<String> = self
                .ports
                .iter()
                .map(|(_, route)| format!("\"nats-route://127.0.0.1:{route}\""))
                .collect();
            config += &format!(
                "cluster: {{name: test, listen: \"127.0.0.1:{route}\", routes: [{}]}}\n",
                routes.join(", ")
            );
        }
        config += &self.config;
        let path = self.directory.path().join(format!("{n}.conf"));
        std::fs::write(&path, config).expect("there is room");
        let child = Command::new(&self.program)
            .args(["-c".as_ref(), path.as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server starts");
        self.running[n] = Some(child);
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "nats-server listens");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.running[n].take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    pub fn url(&self) -> String {
        let urls = self.ports.iter().map(|(port, _)| format!("nats://127.0.0.1:{port}"));
        urls.collect::<Vec<_>>().join(",")
    }

    /// Of one server only.
    pub fn url_of(&self, n: usize) -> String {
        format!("nats://127.0.0.1:{}", self.ports[n].0)
    }

    pub fn count(&self) -> usize {
        self.ports.len()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        (0..self.count()).for_each(|n| self.kill(n));
    }
}
