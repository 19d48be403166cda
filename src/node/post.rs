//! Messages on their way between the processes of a cluster.

use std::collections::VecDeque;
use std::sync::Arc;

use async_nats::Client;
use async_nats::connection::State;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::input::Input;
use super::out::To;
use super::parts::{Parts, split};
use super::wire::{Envelope, Message};
use crate::clock;
use crate::cluster::handle::ClusterHandle;
use crate::cluster::message::Process;
use crate::journal::jetstream::escape;
use crate::logging::{debug, warn};

/// Sends messages, in the order in which they are given. What can't be sent is lost.
pub(super) struct Post {
    handle: Arc<ClusterHandle>,
    out: UnboundedSender<(String, Bytes)>,
    /// What goes to this process itself.
    pub here: VecDeque<Envelope>,
}

impl Post {
    /// On a thread with an actix system. What comes in goes to `input`.
    pub fn start(handle: Arc<ClusterHandle>, input: UnboundedSender<Input>) -> Self {
        let (out, to_send) = unbounded_channel();
        actix::spawn(send(handle.client.clone(), to_send));
        for subject in [all(&handle), subject_of(&handle, &handle.process)] {
            actix::spawn(receive(handle.client.clone(), subject, input.clone()));
        }
        Post { handle, out, here: VecDeque::new() }
    }

    pub fn is_connected(&self) -> bool {
        self.handle.client.connection_state() == State::Connected
    }

    pub fn send(&mut self, to: To, message: Message, keeper: Option<&Process>) {
        let process = match to {
            To::All => {
                let text = self.written(&message);
                self.publish(all(&self.handle), text);
                return self.here(message);
            }
            To::Process(process) => process,
            To::Keeper => match keeper {
                Some(process) => process.clone(),
                None => return,
            },
        };
        if process == self.handle.process {
            return self.here(message);
        }
        let text = self.written(&message);
        self.publish(subject_of(&self.handle, &process), text);
    }

    fn here(&mut self, message: Message) {
        let from = self.handle.process.clone();
        self.here.push_back(Envelope { from, message });
    }

    fn written(&self, message: &Message) -> Option<Vec<u8>> {
        #[derive(serde::Serialize)]
        struct Written<'a> {
            from: &'a Process,
            message: &'a Message,
        }
        let written = serde_json::to_vec(&Written { from: &self.handle.process, message });
        written.inspect_err(|error| warn!("a message can't be written: {error}")).ok()
    }

    fn publish(&self, subject: String, text: Option<Vec<u8>>) {
        for part in split(text.unwrap_or_default()) {
            // It ends with the process only.
            let _ = self.out.send((subject.clone(), part));
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
