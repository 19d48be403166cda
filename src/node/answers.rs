//! What whoever keeps the line is asked and told, and what takes a while to answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::input::Input as AgentInput;
use super::office::Office;
use super::tracked::LATE;
use super::wire::{Answer, Control, GoesOn, Question, Said};
use crate::clock;
use crate::cluster::message::Process;
use crate::event::id::EventId;
use crate::journal::Query;
use crate::journal::record::Ended;
use crate::logging::warn;
use crate::queue::Queue;
use crate::queue::elsewhere::KeyedElsewhere;
use crate::queue::error::ControlError;
use crate::queue::keyed::UserKey;
use crate::scheduler::snapshot::SlotState;

/// How long the journal is left alone when it can't be read.
const AGAIN: Duration = Duration::from_secs(1);

/// Of an event whose end is read from the journal, which keeps no average.
pub(super) fn said_of(Ended { end, duration, .. }: Ended) -> Said {
    Said::Ended { end, duration, average: None }
}

/// Looks how an event has ended, and tells who follows it.
pub(super) fn find(
    office: &Office,
    input: &UnboundedSender<AgentInput>,
    to: Process,
    event: EventId,
) {
    let (queue, input, epoch) = (office.queue.clone(), input.clone(), office.epoch);
    office.thread().spawn(async move {
        let ended = end_of(&queue, event).await;
        let said = ended.map_or(Said::Unknown, said_of);
        let _ = input.send(AgentInput::Found(epoch, to, event, said));
    });
}

/// As long as the journal can't be read, that is for ever.
pub(super) async fn end_of(queue: &Queue, event: EventId) -> Option<Ended> {
    loop {
        match queue.ends(Query::Event(event)).await {
            Ok(kept) => return kept.into_iter().next().map(|kept| kept.ended),
            Err(trouble) => warn!("the end of event {event} can't be looked for: {trouble}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Answers a question.
pub(super) fn answer(
    office: &Office,
    input: &UnboundedSender<AgentInput>,
    to: Process,
    id: u64,
    question: Question,
) {
    let (known, are_all) = match &question {
        Question::Event(event) => (office.tracked.find(*event).into_iter().collect(), true),
        Question::Session { user, session } => {
            match office.tracked.of_session(user.as_ref(), session) {
                // What has ended before the line was kept here isn't known but by the record.
                Some(events) => (events, !office.tracked.is_new()),
                // It is asked again, and by then it is known which ones there are.
                None => return,
            }
        }
        Question::Snapshot
        | Question::Control { .. }
        | Question::Ends(_)
        | Question::Keyed { .. } => (Vec::new(), false),
    };
    let input = input.clone();
    if are_all {
        let _ = input.send(AgentInput::Answered(to, id, Ok(Answer::Events(known))));
        return;
    }
    let places = match &question {
        Question::Snapshot => office.places(),
        _ => HashMap::new(),
    };
    let queue = office.queue.clone();
    office.thread().spawn(async move {
        let answer = match question {
            Question::Snapshot => {
                let mut snapshot = queue.snapshot().await;
                for id in &mut snapshot.concurrency_ids {
                    for slot in &mut id.slots {
                        if let SlotState::Busy { events, node, .. } = &mut slot.state {
                            // The first stands for a batch.
                            *node = events.first().and_then(|event| places.get(event).cloned());
                        }
                    }
                }
                Ok(Answer::Snapshot(Box::new(snapshot)))
            }
            Question::Control { concurrency_id, control } => {
                controlled(&queue, &concurrency_id, control).await
            }
            Question::Ends(query) => {
                queue.ends(query).await.map(Answer::Ends).map_err(|trouble| trouble.to_string())
            }
            Question::Keyed { listener, user, key } => keyed(&queue, listener, (user, key)).await,
            Question::Session { user, session } => of_session(&queue, known, user, session).await,
            Question::Event(_) => Ok(Answer::Events(Vec::new())),
        };
        let _ = input.send(AgentInput::Answered(to, id, answer));
    });
}

/// Those of a session that go on, and those that have ended not long ago.
async fn of_session(
    queue: &Queue,
    mut known: Vec<GoesOn>,
    user: Option<Arc<str>>,
    session: Arc<str>,
) -> Result<Answer, String> {
    let since = clock::unix_millis().saturating_sub(clock::millis(LATE));
    let ends = queue.ends(Query::Session { user, session, since }).await;
    for kept in ends.map_err(|trouble| trouble.to_string())? {
        let (event, listener) = (kept.ended.event, kept.listener);
        let (user, session) = (kept.user, kept.session);
        if !known.iter().any(|known| known.event == event) {
            known.push(GoesOn { event, listener, user, session, ended: true });
        }
    }
    Ok(Answer::Events(known))
}

async fn keyed(queue: &Queue, listener: Arc<str>, user_key: UserKey) -> Result<Answer, String> {
    let listener_ref = queue.inner().listener_ref(&listener);
    if let Some(keyed) = listener_ref.and_then(|it| it.keyed.find(&user_key)) {
        let (event, input) = (keyed.event, Some(keyed.input));
        return Ok(Answer::Keyed(Some(KeyedElsewhere { event, input, has_ended: false })));
    }
    let (user, key) = user_key;
    let ends = queue.ends(Query::Key { listener, user, key }).await;
    let kept = ends.map_err(|trouble| trouble.to_string())?.pop();
    Ok(Answer::Keyed(kept.map(|kept| {
        let (event, input) = (kept.ended.event, kept.input);
        KeyedElsewhere { event, input, has_ended: true }
    })))
}

async fn controlled(
    queue: &Queue,
    concurrency_id: &Arc<str>,
    control: Control,
) -> Result<Answer, String> {
    let done = match control {
        Control::Pause => queue.pause(concurrency_id).await,
        Control::Resume => queue.resume(concurrency_id).await,
        Control::SetLimit(limit) => queue.set_concurrency_limit(concurrency_id, limit).await,
    };
    match done {
        Ok(()) => Ok(Answer::Controlled(None)),
        Err(ControlError::NotRecorded(trouble)) => {
            Ok(Answer::Controlled(Some(trouble.to_string())))
        }
        Err(error) => Err(error.to_string()),
    }
}
