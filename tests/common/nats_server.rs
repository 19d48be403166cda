//! NATS servers of a test's own. They need the program: `NATS_SERVER` names it. Without that variable, the
//! tests that need one say so and do nothing else; `tests/run` installs it and sets it.

use std::collections::hash_map::RandomState;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
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

/// None of those that clients' ends of connections get: one that connects again and again to a server that is
/// away would sooner or later connect to itself.
fn free_port() -> TcpListener {
    let random = || 20_000 + std::hash::BuildHasher::hash_one(&RandomState::new(), ()) % 12_000;
    let mut ports = std::iter::repeat_with(|| u16::try_from(random()).expect("it is one"));
    ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).expect("some are free")
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
        // Somebody else may take a port before its server does.
        let attempts = std::iter::repeat_with(|| Servers::try_start(&program, count, config));
        Some(attempts.take(5).flatten().next().expect("nats-server starts"))
    }

    fn try_start(program: &Path, count: usize, config: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("there is room");
        // Held until all are chosen, so that they differ.
        let held: Vec<TcpListener> = (0..2 * count).map(|_| free_port()).collect();
        let port = |at: usize| held[at].local_addr().expect("it is bound").port();
        let ports = (0..count).map(|n| (port(2 * n), port(2 * n + 1))).collect();
        drop(held);
        let (program, config) = (program.to_path_buf(), config.to_string());
        let running = (0..count).map(|_| None).collect();
        let mut servers = Servers { program, directory, config, ports, running };
        (0..count).all(|n| servers.try_start_one(n)).then_some(servers)
    }

    pub fn start_one(&mut self, n: usize) {
        assert!(self.try_start_one(n), "nats-server starts");
    }

    fn try_start_one(&mut self, n: usize) -> bool {
        let (port, route) = self.ports[n];
        let mut config = format!(
            "server_name: n{n}\nlisten: \"127.0.0.1:{port}\"\n\
             jetstream: {{store_dir: {:?}, sync_interval: always, max_file: 400MB}}\n",
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
            .expect("nats-server is a program");
        let child = self.running[n].insert(child);
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if child.try_wait().expect("it is ours").is_some() {
                return false;
            }
            assert!(Instant::now() < until, "nats-server listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        true
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
