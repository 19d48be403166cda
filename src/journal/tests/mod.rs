//! Tests of what keeps records.

mod conformance;
#[cfg(feature = "journal")]
mod damage;
#[cfg(feature = "journal")]
mod files;
#[cfg(feature = "cluster")]
#[path = "../../../tests/common/nats_server.rs"]
pub(crate) mod nats_server;
#[cfg(feature = "cluster")]
mod on_nats;

use std::sync::mpsc;

use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::journal::error::JournalError;
use crate::journal::record::{Admitted, End, Ended, Kept, Record};
use crate::journal::{Batch, Journal, Query};

#[cfg(feature = "journal")]
fn open(path: &std::path::Path) -> crate::journal::sqlite::Sqlite {
    crate::journal::sqlite::Sqlite::open(path).expect("it opens")
}

fn admitted(n: u128) -> Record {
    Record::Admitted(Admitted {
        event: EventId::for_test(n),
        listener: if n.is_multiple_of(2) { "even" } else { "odd" }.into(),
        session: n.is_multiple_of(3).then(|| format!("session {n}").into()),
        user: n.is_multiple_of(5).then(|| "ada".into()),
        key: n.is_multiple_of(7).then(|| format!("key {n}").into()),
        webhook: n.is_multiple_of(4).then(|| format!("https://a.org/{n}").into()),
        not_before: n.is_multiple_of(11).then_some(12_345),
        came_to: None,
        at: n as u64,
        input: JsonText::of(&format!("input \u{0} {n}")).expect("it is text"),
    })
}

fn ended(n: u128, end: End) -> Record {
    let event = EventId::for_test(n);
    Record::Ended(Ended { event, end, duration: 0.5, at: 1000 + n as u64 })
}

fn completed(n: u128) -> End {
    End::Completed(Some(JsonText::of(&n).expect("it is a number")))
}

/// Appends, and waits until that is durable or not.
fn append(journal: &impl Journal, records: Vec<Record>) -> Result<(), JournalError> {
    append_to(journal, "gpu", records)
}

/// The same, of a concurrency id.
fn append_to(journal: &impl Journal, id: &str, records: Vec<Record>) -> Result<(), JournalError> {
    let (done, is_done) = mpsc::channel();
    let batch = Batch { concurrency_id: id.into(), records: records.into() };
    journal.append(batch, Box::new(move |result| done.send(result).expect("the test waits")));
    is_done.recv().expect("it is called")
}

fn ends(journal: &impl Journal, query: Query) -> Vec<Kept> {
    journal.ends(query).blocking_recv().expect("it answers").expect("it can be read")
}
