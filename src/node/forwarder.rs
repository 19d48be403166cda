//! The actor that stands for the supervisor of a concurrency id whose line is kept elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use tokio::sync::mpsc::UnboundedSender;

use super::input::Input;
use crate::actors::messages::{Admit, CancelOf, Subscribe};
use crate::event::refusal::Refusal;

pub(super) struct Forwarder {
    /// The names of its listeners, by number. Known once the queue has started.
    pub names: Arc<std::sync::OnceLock<HashMap<usize, Arc<str>>>>,
    pub agent: UnboundedSender<Input>,
}

impl Forwarder {
    fn name(&self, listener: usize) -> Option<Arc<str>> {
        self.names.get()?.get(&listener).cloned()
    }
}

impl Actor for Forwarder {
    type Context = Context<Self>;
}

impl Handler<Admit> for Forwarder {
    type Result = ();

    fn handle(&mut self, Admit { listener, submit }: Admit, _: &mut Self::Context) {
        match self.name(listener) {
            // Where there is no agent any more, the event's sender says that it is lost.
            Some(name) => drop(self.agent.send(Input::Submit(name, Box::new(submit)))),
            None => submit.job.sender.refuse(Refusal::Stopped),
        }
    }
}

impl Handler<CancelOf> for Forwarder {
    type Result = ();

    fn handle(&mut self, CancelOf { listener, id }: CancelOf, _: &mut Self::Context) {
        if let Some(name) = self.name(listener) {
            let _ = self.agent.send(Input::Cancel(name, id));
        }
    }
}

impl Handler<Subscribe> for Forwarder {
    type Result = ();

    /// Whoever keeps the line says itself when that is full.
    fn handle(&mut self, _: Subscribe, _: &mut Self::Context) {}
}
