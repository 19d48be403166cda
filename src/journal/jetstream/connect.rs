//! Connecting to NATS.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, ServerAddr};
use futures::StreamExt;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::group::Group;
use super::log::{Log, unreachable};
use super::stream::{Stream, StreamSettings};
use crate::journal::error::JournalError;
use crate::logging::{info, warn};

/// How long NATS may take to answer. Longer than a stream takes to choose a new leader.
const ANSWER: Duration = Duration::from_secs(5);

/// How long whoever has the journal may take to say so.
const OWNER_ANSWER: Duration = Duration::from_secs(2);

/// How long whoever had the journal must be gone before a process that stands by takes it over: a connection
/// that breaks is made again meanwhile, or its process has stopped what it ran.
pub(super) const GONE: Duration = Duration::from_secs(8);

/// How often a process that stands by asks.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Connects when it is awaited. Made by [`Nats::connect`](crate::Nats::connect).
///
/// ```no_run
/// # use now_serving::Nats;
/// # async fn connect() -> Result<(), now_serving::JournalError> {
/// let journal = Nats::connect("tls://nats-1.example.org,tls://nats-2.example.org,tls://nats-3.example.org")
///     .name("studio")
///     .credentials_file("/run/secrets/nats.creds")
///     .root_certificates("/etc/ssl/our-ca.pem")
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Awaiting it gives an error when no server can be reached, none lets this client in, JetStream isn't there
/// or older than 2.12, the stream holds something else, or another process has the journal of this name.
#[derive(Clone)]
#[must_use = "it connects when it is awaited"]
pub struct ConnectNats {
    servers: String,
    pub(crate) name: String,
    replicas: Option<usize>,
    is_standby: bool,
    user: Option<(String, String)>,
    credentials: Option<PathBuf>,
    root_certificates: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
}

impl ConnectNats {
    pub(super) fn new(servers: String) -> Self {
        ConnectNats {
            servers,
            name: "now-serving".into(),
            replicas: None,
            is_standby: false,
            user: None,
            credentials: None,
            root_certificates: None,
            client_certificate: None,
        }
    }

    /// Of which service the journal is (default: `now-serving`). Two services that share servers and an
    /// account have a name each.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// On how many servers the stream is kept (default: 3 where the servers form a cluster, otherwise 1).
    /// It counts when the stream is made; later, change it with `nats stream edit`.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = Some(replicas);
        self
    }

    /// Waits while another process has the journal, and takes it over when that one has stopped in order, or has
    /// been gone, or hasn't answered, for eight seconds. So a second machine stands by, or the next version of a service waits for
    /// the last one to stop. Without, connecting gives an error at once.
    ///
    /// Since others may stand by as well, a process that has been given the journal so gives it up when NATS
    /// hasn't kept a record of it for six seconds: it stops what it runs before another one starts that, and has
    /// to be restarted ([`JournalError::LeaseLost`]).
    ///
    /// ```no_run
    /// # use now_serving::Nats;
    /// # async fn connect() -> Result<(), now_serving::JournalError> {
    /// // Returns once it is this process' turn.
    /// let journal = Nats::connect("nats://nats-1.example.org").name("studio").standby().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn standby(mut self) -> Self {
        self.is_standby = true;
        self
    }

    /// By which the servers let this client in; or in the URL, `nats://USER:PASSWORD@HOST`, where what means
    /// something in a URL is percent-encoded.
    pub fn user_and_password(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.user = Some((user.into(), password.into()));
        self
    }

    /// A file with a JWT and a key, as `nsc` writes them.
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials = Some(path.into());
        self
    }

    /// A PEM file with the certificates of authorities that the servers' certificates are checked by,
    /// instead of the system's. The connection is encrypted then.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.root_certificates = Some(path.into());
        self
    }

    /// PEM files with a certificate and its key, by which the servers know this client. The connection is
    /// encrypted then.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    pub(crate) async fn client(&self) -> Result<Client, JournalError> {
        let mut options = ConnectOptions::new()
            .name(format!("now-serving {}", self.name))
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .ping_interval(Duration::from_secs(10));
        if let Some(path) = &self.credentials {
            let unreadable = |error: std::io::Error| {
                JournalError::Unreachable(format!("{}: {error}", path.display()))
            };
            options = options.credentials_file(path).await.map_err(unreadable)?;
        }
        if let Some(path) = &self.root_certificates {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = &self.client_certificate {
            options =
                options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
        }
        let servers = self.servers.split(',').map(|url| url.trim().parse());
        let servers: Vec<ServerAddr> = servers.collect::<Result<_, _>>().map_err(unreachable)?;
        let user = self.user.clone();
        if let Some((user, password)) = user.or_else(|| servers.iter().find_map(user_in)) {
            options = options.user_and_password(user, password);
        }
        options.connect(servers).await.map_err(unreachable)
    }

    async fn open(&self, client: &Client) -> Result<Stream, JournalError> {
        let token = escape(&self.name);
        let settings = StreamSettings {
            name: format!("now-serving_{token}_journal"),
            subject: format!("now-serving.{token}.journal"),
            replicas: self.replicas,
        };
        Stream::open(client.clone(), settings).await
    }

    /// Without a look at who has it.
    #[cfg(test)]
    pub(super) async fn test_stream(self) -> Result<Stream, JournalError> {
        self.open(&self.client().await?).await
    }

    /// The stream, and whoever asks who has it is answered from here on. `stood_by` becomes true where another
    /// process has it, and is waited for.
    pub(super) async fn stream(
        &self,
        by: String,
        stood_by: &AtomicBool,
    ) -> Result<Stream, JournalError> {
        let client = self.client().await?;
        let mut stream = self.open(&client).await?;
        let owner = self.subject("owner");
        if self.is_standby {
            stand_by(&client, &owner, &stream, stood_by).await?;
        } else if let Asked::By(by) = who_has(&client, &owner).await {
            return Err(JournalError::Owned { name: stream.name().to_string(), by });
        }
        answer(client, owner, by, &mut stream).await?;
        Ok(stream)
    }

    /// The stream, whoever has it.
    pub(super) async fn taken(&self, by: String) -> Result<Stream, JournalError> {
        let client = self.client().await?;
        let mut stream = self.open(&client).await?;
        answer(client, self.subject("owner"), by, &mut stream).await?;
        Ok(stream)
    }

    /// A subject of this service.
    fn subject(&self, rest: &str) -> String {
        format!("now-serving.{}.{rest}", escape(&self.name))
    }

    /// The last sequence of the stream, and whether nobody has it by the last word of whoever had it.
    pub(crate) async fn last(&self, client: &Client) -> Result<(u64, bool), JournalError> {
        last(&self.open(client).await?).await
    }

    pub(super) fn is_standby(&self) -> bool {
        self.is_standby
    }
}

/// Whoever asks who has it is answered from here on, as long as the stream is there.
async fn answer(
    client: Client,
    owner: String,
    by: String,
    stream: &mut Stream,
) -> Result<(), JournalError> {
    let mut asked = client.subscribe(owner).await.map_err(unreachable)?;
    // With the connection it ends.
    let answering = tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let Some(reply) = message.reply else { continue };
            if let Err(error) = client.publish(reply, by.clone().into()).await {
                warn!("nobody hears who has the journal: {error}");
            }
        }
    });
    stream.answered_by(answering.abort_handle());
    Ok(())
}

/// Without what is secret.
impl fmt::Debug for ConnectNats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectNats").field("name", &self.name).finish_non_exhaustive()
    }
}

fn user_in(server: &ServerAddr) -> Option<(String, String)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let password = server.password().unwrap_or_default();
    server.username().map(|user| (decode(user), decode(password)))
}

/// What came of asking who has the journal.
#[derive(Debug, PartialEq)]
enum Asked {
    By(String),
    Nobody,
    /// Whether somebody has it isn't known: the question may not have left this machine.
    Unknown,
}

async fn who_has(client: &Client, owner: &str) -> Asked {
    if client.connection_state() != State::Connected {
        return Asked::Unknown;
    }
    let answer = client.request(owner.to_string(), "".into());
    match tokio::time::timeout(OWNER_ANSWER, answer).await {
        Ok(Ok(answer)) => Asked::By(String::from_utf8_lossy(&answer.payload).into_owned()),
        // Who doesn't answer can be taken over from: the stream refuses what comes from there then.
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Asked::Nobody,
        Err(_) if client.connection_state() == State::Connected => Asked::Nobody,
        Ok(Err(_)) | Err(_) => Asked::Unknown,
    }
}

/// Returns once it is this process' turn: whoever had the journal has stopped in order, or has been gone for
/// long enough, as far as a process can tell that is connected all the while.
async fn stand_by(
    client: &Client,
    owner: &str,
    stream: &Stream,
    stood_by: &AtomicBool,
) -> Result<(), JournalError> {
    let mut gone_since = None;
    let mut waits_for = None;
    loop {
        let asked = Instant::now();
        match who_has(client, owner).await {
            Asked::By(by) => {
                gone_since = None;
                if waits_for.as_ref() != Some(&by) {
                    info!("{}: stands by while {by} has the journal", stream.name());
                    waits_for = Some(by);
                    stood_by.store(true, Ordering::Relaxed);
                }
            }
            Asked::Nobody if last(stream).await?.1 => return Ok(()),
            Asked::Nobody if asked - *gone_since.get_or_insert(asked) >= GONE => return Ok(()),
            Asked::Nobody => {}
            Asked::Unknown => gone_since = None,
        }
        tokio::time::sleep_until(asked + ASK_AGAIN).await;
    }
}

/// Its last sequence, and whether nobody has it by its last word, or nobody ever had it.
async fn last(stream: &Stream) -> Result<(u64, bool), JournalError> {
    let (_, last) = stream.bounds().await?;
    if last == 0 {
        return Ok((last, true));
    }
    let Some(stored) = stream.read(last).await? else { return Ok((last, false)) };
    // The last part of something longer is no group.
    let group = Group::decode(stream.name(), &stored.text);
    Ok((last, group.is_ok_and(|group| group.released)))
}

/// For people who look for it.
pub(crate) fn this_process() -> String {
    let host = std::env::var("HOSTNAME").ok();
    let host = host.or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let process = std::process::id();
    match host.as_deref().map(str::trim).filter(|host| !host.is_empty()) {
        Some(host) => format!("process {process} on {host}"),
        None => format!("process {process}"),
    }
}

/// A name as a part of a subject and of a stream's name, where dots, spaces, wildcards and slashes mean
/// something. Different names stay different.
pub(crate) fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("_{byte:02x}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("studio-2"), "studio-2");
        assert_eq!(escape("a.b>*_ /é"), "a_2eb_3e_2a_5f_20_2f_c3_a9");
    }
}
