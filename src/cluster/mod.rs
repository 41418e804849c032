//! What several pointsman in front of the same servers agree on: who is there, who acts for which
//! group, and what the one who acts has written down.
//!
//! Does not know: what a record says, how servers are asked, sessions. There are two ways. It all
//! lies in etcd ([`etcd`]), below one prefix:
//!
//! - `NAME/members/ID@LEASE`, one for each pointsman that lives, bound to its lease: which state of
//!   each group it has seen and obeys, whether it reaches the primary, and what its clients were
//!   told of by one that is replaced;
//! - `NAME/groups/GROUP/leader`, of the one that acts for the group, bound to its lease;
//! - `NAME/groups/GROUP/record`, what that one has written down. Each write compares the leader's
//!   key and the record that it follows, so that one who leads no more can write nothing.
//!
//! One task ([`agent`]) holds this pointsman's lease, reads all of that, and hands each group's
//! part to the group's keeper by a [`desk`]. Until when statements may be sent to a primary is told
//! to the data path by a [`lease`].
//!
//! Or the servers themselves are what is agreed by: one task for each group ([`locks`]) asks them
//! as [`voter`]s, and counts ([`tally`]) whose locks and whose word a majority of them has. Then
//! each keeper has a record of its own, and sees from the servers what others have done.

pub mod agent;
pub mod desk;
pub mod etcd;
pub mod lease;
pub mod locks;
pub mod store;
pub mod tally;
pub mod voter;
