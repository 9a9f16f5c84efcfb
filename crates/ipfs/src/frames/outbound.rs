//! Sending: one queue and one task per peer and protocol, so that frames leave in order.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered,
};
use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

use super::{FrameProtocol, WriteFrameError, write_frame};
use crate::{
    OpenStreamError,
    event::{Event, Outbox},
    host::Opener,
};
