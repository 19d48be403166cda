//! The rules that the machines hold to. The simulation leaves one out at a time, and must find that.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The record refuses what a deposed owner appends.
    Fence,
    /// An owner grants only while its last append that was kept is new enough.
    Renewal,
    /// A new owner waits for two leases for nodes that may hold one of an earlier owner's.
    TwoLeases,
    /// A node stops its runs when its lease ends, and takes none without.
    SelfStop,
    /// A new owner counts the runs of the one before it.
    Adoption,
    /// A start is recorded before it is sent.
    RecordedStart,
    /// When it is recorded, the owner looks once more whether it still stands.
    SecondLook,
    /// A run is for one process.
    Boot,
    /// A run is for a process that was there a moment ago.
    Beat,
    /// A node says of runs that it has stopped them.
    StoppedRuns,
    /// What an owner says counts unless a later one has been heard of.
    WhoseWord,
    /// No attempt is taken twice.
    Duplicate,
    /// A process of a later boot proves that the one before it is dead.
    OldSelf,
    /// What was not taken is sent again.
    SendAgain,
    /// A node is asked no more for an attempt only once it is on record what has become of its event.
    Settlement,
}
