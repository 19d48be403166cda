//! What comes out of the declarations: the concurrency ids, the rules of each, and the threads.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::declarations::{Declarations, DeclaredListener};
use super::error::StartError;
use super::spelling;
use crate::actors::worker_config::WorkerListener;
use crate::clock::bounded;
use crate::handler::extensions::Extensions;
use crate::logging::warn;
use crate::scheduler::limit::{Limit, merge};
use crate::scheduler::rules::{BatchRules, ListenerRules, ResourceRules, Rules};

/// What is to be started for one concurrency id.
pub(crate) struct Plan {
    pub(crate) rules: Rules,
    pub(crate) members: Vec<usize>,
    pub(crate) placement: Placement,
}

/// Which threads a concurrency id runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// One that others run on too.
    Shared,
    /// One of its own.
    Own,
    /// One that others run on too; its workers are spread over several apart from that.
    Spread,
}

/// The listeners of each concurrency id, and the rules that they agree on.
pub(crate) fn plan(declared: &Declarations, default: Limit) -> Result<Vec<Plan>, StartError> {
    let mut members: Vec<(Arc<str>, Vec<usize>)> = Vec::new();
    let mut found: HashMap<Arc<str>, usize> = HashMap::new();
    for (index, listener) in declared.listeners.iter().enumerate() {
        // A listener of its own id gets one that no declared id can be: declared ids are
        // looked up apart from it.
        let id: Arc<str> = match &listener.concurrency_id {
            Some(id) => id.as_str().into(),
            None => listener.api_name.clone(),
        };
        let at = *found.entry(id.clone()).or_insert_with(|| {
            members.push((id, Vec::new()));
            members.len() - 1
        });
        members[at].1.push(index);
    }
    let unknown = |what, id: &str, used: &[(Arc<str>, Vec<usize>)]| {
        let near = spelling::nearest(id, used.iter().map(|(used, _)| &**used));
        StartError::UnknownConcurrencyId { what, id: id.into(), near: near.map(String::from) }
    };
    let strays = declared.limits.iter().filter(|(id, _)| !declared.permits.contains(id));
    let mut strays = strays.filter(|(id, _)| !found.contains_key(&**id));
    // Without any listener the queue is for gates and permits alone.
    if let Some((id, _)) = strays.next().filter(|_| !declared.listeners.is_empty()) {
        return Err(unknown("concurrency_id()", id, &members));
    }
    for (id, _) in &declared.limits {
        let id: Arc<str> = id.as_str().into();
        found.entry(id.clone()).or_insert_with(|| {
            members.push((id, Vec::new()));
            members.len() - 1
        });
    }
    if let Some((id, _)) = declared.factories.iter().find(|(id, _)| !found.contains_key(&**id)) {
        return Err(unknown("slots()", id, &members));
    }
    let mut built = HashSet::new();
    if let Some((id, _)) = declared.factories.iter().find(|(id, _)| !built.insert(id)) {
        return Err(StartError::DuplicateSlots(id.clone()));
    }
    members.into_iter().map(|(id, members)| plan_one(declared, id, members, default)).collect()
}

fn plan_one(
    declared: &Declarations,
    id: Arc<str>,
    members: Vec<usize>,
    default: Limit,
) -> Result<Plan, StartError> {
    let listeners: Vec<&DeclaredListener> =
        members.iter().map(|&m| &declared.listeners[m]).collect();
    let unqueued = listeners.iter().find(|listener| !listener.queued);
    let alone = listeners.len() == 1 && !declared.limits.iter().any(|(name, _)| **name == *id);
    if let Some(listener) = unqueued.filter(|_| !alone) {
        return Err(StartError::Unqueued {
            listener: listener.api_name.to_string(),
            option: format!("others on its concurrency id {id:?}"),
        });
    }
    let placement = placement(&id, &listeners)?;
    let default = if unqueued.is_some() { Limit::Unlimited } else { default };
    let apart = declared.limits.iter().filter(|(name, _)| **name == *id);
    let declarations = listeners.iter().map(|l| l.limit).chain(apart.map(|(_, l)| Some(*l)));
    let merged = merge(declarations, default);
    if merged.conflict {
        warn!("{id}: several limits are declared; the lowest, {}, holds", merged.limit);
    }
    let factory = declared.factory(&id);
    for listener in &listeners {
        for need in &listener.needs.slots {
            if factory.is_none_or(|factory| factory.built.id != need.id) {
                return Err(StartError::WrongResource {
                    listener: listener.api_name.to_string(),
                    id: id.to_string(),
                    wanted: format!("a Slot<{}>", need.name),
                    has: factory.map_or("builds none; see slots()".into(), |factory| {
                        format!("builds a {}", factory.built.name)
                    }),
                });
            }
        }
    }
    if factory.is_some() && merged.limit == Limit::Unlimited {
        let names: Vec<_> = listeners.iter().map(|l| format!("{:?}", l.api_name)).collect();
        return Err(StartError::ResourceWithoutLimit {
            id: id.to_string(),
            listener: format!("listener {}", names.join(", ")),
        });
    }
    let rules: Vec<ListenerRules> = listeners
        .iter()
        .map(|listener| ListenerRules {
            api_name: listener.api_name.clone(),
            batch: listener
                .batch
                .map(|batch| BatchRules { max_wait: bounded(batch.max_wait), ..batch }),
            time_limit: listener.time_limit.map(bounded),
            queue_timeout: listener.queue_timeout.map(bounded),
            durable: listener.codec.is_some(),
        })
        .collect();
    Ok(Plan {
        rules: Rules {
            concurrency_id: id,
            limit: merged.limit,
            max_size: listeners.iter().filter_map(|l| l.max_size).min(),
            max_eta: declared.max_eta,
            resource: factory
                .map(|factory| ResourceRules::new(merged.limit, factory.unavailable_after)),
            listeners: rules,
            queue_max_size: declared.max_size,
        },
        members,
        placement,
    })
}

/// Like a thread of its own, one listener asks for it and the whole id has it.
fn placement(id: &str, listeners: &[&DeclaredListener]) -> Result<Placement, StartError> {
    let own = listeners.iter().find(|listener| listener.own_arbiter);
    let spread = listeners.iter().find(|listener| listener.spread);
    match (own, spread) {
        (None, None) => Ok(Placement::Shared),
        (Some(_), None) => Ok(Placement::Own),
        (None, Some(_)) => Ok(Placement::Spread),
        (Some(own), Some(spread)) => Err(StartError::SpreadOnOwnArbiter {
            id: id.into(),
            spread: spread.api_name.to_string(),
            own_arbiter: own.api_name.to_string(),
        }),
    }
}

/// What the workers of a concurrency id are given of its listeners.
pub(crate) fn worker_listeners(
    declared: &Declarations,
    extensions: &Extensions,
    members: &[usize],
    records: bool,
) -> Vec<WorkerListener> {
    members
        .iter()
        .map(|&member| WorkerListener {
            api_name: declared.listeners[member].api_name.clone(),
            number: u16::try_from(member).unwrap_or(u16::MAX),
            start: declared.listeners[member].start.clone(),
            takes_slot: !declared.listeners[member].needs.slots.is_empty(),
            durability: declared.listeners[member].durability(extensions).filter(|_| records),
        })
        .collect()
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

pub(crate) fn limit_from_environment() -> Result<Limit, StartError> {
    match std::env::var("NOW_SERVING_DEFAULT_CONCURRENCY_LIMIT") {
        Err(std::env::VarError::NotPresent) => Ok(Limit::Slots(1)),
        Err(std::env::VarError::NotUnicode(text)) => {
            Err(StartError::BadEnvironment(text.to_string_lossy().into()))
        }
        Ok(text) => parse_limit(&text).ok_or(StartError::BadEnvironment(text)),
    }
}

fn parse_limit(text: &str) -> Option<Limit> {
    if text.trim().eq_ignore_ascii_case("none") {
        return Some(Limit::Unlimited);
    }
    text.trim().parse().ok().filter(|&slots| slots > 0).map(Limit::Slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_a_number_or_none() {
        assert_eq!(parse_limit("3"), Some(Limit::Slots(3)));
        assert_eq!(parse_limit(" None "), Some(Limit::Unlimited));
        for text in ["", "0", "-1", "many", "1.5"] {
            assert_eq!(parse_limit(text), None, "{text}");
        }
    }
}
