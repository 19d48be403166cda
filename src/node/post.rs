//! Messages on their way between the processes of a cluster.

use std::collections::VecDeque;
use std::sync::Arc;

use async_nats::Client;
use async_nats::connection::State;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::frame::Frame;
use super::input::Input;
use super::out::To;
use super::parts::{Parts, split};
use super::wire::Message;
use crate::clock;
use crate::cluster::handle::ClusterHandle;
use crate::cluster::message::Process;
use crate::journal::jetstream::escape;
use crate::logging::{debug, warn};

/// Sends messages, to each process in the order in which they are given. What can't be sent is lost.
pub(super) struct Post {
    handle: Arc<ClusterHandle>,
    out: UnboundedSender<(String, Bytes)>,
    /// What is to be sent yet, to each process.
    frames: Vec<(Process, Frame)>,
    /// What goes to this process itself.
    pub here: VecDeque<Message>,
}

impl Post {
    /// On a thread with an actix system. What comes in goes to `input`.
    pub fn start(handle: Arc<ClusterHandle>, input: UnboundedSender<Input>) -> Self {
        let (out, to_send) = unbounded_channel();
        actix::spawn(send(handle.client.clone(), to_send));
        for subject in [all(&handle), subject_of(&handle, &handle.process)] {
            actix::spawn(receive(handle.client.clone(), subject, input.clone()));
        }
        Post { handle, out, frames: Vec::new(), here: VecDeque::new() }
    }

    pub fn is_connected(&self) -> bool {
        self.handle.client.connection_state() == State::Connected
    }

    /// What goes to one process is sent with what else goes there, by [`Post::flush`].
    pub fn send(&mut self, to: To, message: Message, keeper: Option<&Process>) {
        let process = match to {
            To::All => return self.send_to_all(message),
            To::Process(process) => process,
            To::Keeper => match keeper {
                Some(process) => process.clone(),
                None => return,
            },
        };
        if process == self.handle.process {
            return self.here.push_back(message);
        }
        let Post { handle, frames, .. } = self;
        let of_process = frames.iter().position(|(to, _)| *to == process);
        let at = of_process.unwrap_or_else(|| {
            frames.push((process, Frame::new(&handle.process)));
            frames.len() - 1
        });
        let Some((process, frame)) = frames.get_mut(at) else { return };
        if let Some(full) = frame.add(&handle.process, &message) {
            let subject = subject_of(handle, process);
            self.publish(&subject, full);
        }
    }

    fn send_to_all(&mut self, message: Message) {
        // What was said before is heard before.
        self.flush();
        let mut frame = Frame::new(&self.handle.process);
        frame.add(&self.handle.process, &message);
        if let Some(text) = frame.written() {
            self.publish(&all(&self.handle), text);
        }
        self.here.push_back(message);
    }

    /// Sends what is there.
    pub fn flush(&mut self) {
        for (process, frame) in std::mem::take(&mut self.frames) {
            if let Some(text) = frame.written() {
                self.publish(&subject_of(&self.handle, &process), text);
            }
        }
    }

    fn publish(&self, subject: &str, text: Vec<u8>) {
        for part in split(text) {
            // It ends with the process only.
            let _ = self.out.send((subject.to_owned(), part));
        }
    }
}

fn all(handle: &ClusterHandle) -> String {
    handle.subject("node.all")
}

fn subject_of(handle: &ClusterHandle, process: &Process) -> String {
    handle.subject(&format!("node.{}.{}", escape(&process.node), process.boot))
}

async fn send(client: Client, mut to_send: UnboundedReceiver<(String, Bytes)>) {
    while let Some((subject, bytes)) = to_send.recv().await {
        // What gathers while NATS is away would be old when it is back.
        if client.connection_state() != State::Connected {
            continue;
        }
        if let Err(error) = client.publish(subject, bytes).await {
            debug!("a message is lost: {error}");
        }
    }
}

async fn receive(client: Client, subject: String, input: UnboundedSender<Input>) {
    let mut parts = Parts::default();
    loop {
        match client.subscribe(subject.clone()).await {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    let Some(text) = parts.take(clock::now(), &message.payload) else { continue };
                    match serde_json::from_slice(&text) {
                        Ok(envelope) => {
                            if input.send(Input::Came(Box::new(envelope))).is_err() {
                                return;
                            }
                        }
                        Err(error) => debug!("a message isn't understood: {error}"),
                    }
                }
            }
            Err(error) => warn!("{subject} can't be listened to: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}
