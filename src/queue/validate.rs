//! Contradictions in a queue's declarations, checked before anything is started.

use std::collections::HashSet;

use super::declarations::Declarations;
use super::error::StartError;
use crate::handler::needs::NamedType;
use crate::scheduler::limit::Limit;

/// Refuses what contradicts itself, naming the listener.
pub(crate) fn check(queue: &Declarations, default: Limit) -> Result<(), StartError> {
    let mut names = HashSet::new();
    for listener in &queue.listeners {
        let name = &*listener.api_name;
        let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(usable) || name.starts_with('.') {
            return Err(StartError::BadListenerName(name.into()));
        }
        if !names.insert(name) {
            return Err(StartError::DuplicateListener(name.into()));
        }
        let who = format!("listener {name:?}");
        if listener.concurrency_id.as_deref() == Some("") {
            return Err(StartError::EmptyConcurrencyId(who));
        }
        if listener.limit == Some(Limit::Slots(0)) {
            return Err(StartError::ZeroLimit(who));
        }
        if listener.max_size == Some(0) {
            return Err(StartError::ZeroMaxSize(who));
        }
        if queue.elsewhere.is_some() && listener.queued && listener.codec.is_none() {
            return Err(StartError::NotDurableInCluster(name.into()));
        }
        if listener.codec.is_some() && queue.journal.is_none() && queue.elsewhere.is_none() {
            return Err(StartError::DurableWithoutJournal(name.into()));
        }
        if let Some(option) = listener.durable_option().filter(|_| listener.codec.is_none()) {
            return Err(StartError::NotDurable { listener: name.into(), option });
        }
        if listener.max_attempts == Some(0) {
            return Err(StartError::ZeroAttempts(name.into()));
        }
        if let Some(option) = listener.queue_option().filter(|_| !listener.queued) {
            return Err(StartError::Unqueued { listener: name.into(), option: option.into() });
        }
        if let Some(validator) = &listener.validator
            && validator.id != listener.input.id
        {
            return Err(StartError::WrongValidator {
                listener: name.into(),
                takes: listener.input.name,
                given: validator.name,
            });
        }
        if let Some(extra) = listener.needs.of_client().filter(|_| listener.batch.is_some()) {
            return Err(StartError::BatchExtra { listener: name.into(), extra });
        }
        let given = |need: &&NamedType| queue.data_types.iter().any(|data| data.id == need.id);
        if let Some(missing) = listener.needs.data.iter().find(|need| !given(need)) {
            let (listener, wanted) = (name.into(), missing.name);
            return Err(StartError::MissingData { listener, wanted });
        }
        if let Some(contradiction) = &listener.contradiction {
            return Err(contradiction.clone());
        }
        if listener.batch.is_some_and(|batch| batch.max_size == 0) {
            return Err(StartError::ZeroBatchSize(name.into()));
        }
    }
    if default == Limit::Slots(0) {
        return Err(StartError::ZeroLimit("default_concurrency_limit".into()));
    }
    if queue.journal.is_some() && queue.elsewhere.is_some() {
        return Err(StartError::JournalInCluster);
    }
    if queue.max_size == Some(0) {
        return Err(StartError::ZeroMaxSize("the queue".into()));
    }
    let mut data = HashSet::new();
    if let Some(twice) = queue.data_types.iter().find(|data_type| !data.insert(data_type.id)) {
        return Err(StartError::DuplicateData(twice.name));
    }
    for (id, limit) in &queue.limits {
        if id.is_empty() {
            return Err(StartError::EmptyConcurrencyId("concurrency_id()".into()));
        }
        if *limit == Limit::Slots(0) {
            return Err(StartError::ZeroLimit(format!("concurrency id {id:?}")));
        }
    }
    Ok(())
}
