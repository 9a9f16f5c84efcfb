//! What two `dunlin node` processes do on loopback, seen through `ProtocolService`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dunlin_node::rpc::protocol::protocol_service_client::ProtocolServiceClient;
use dunlin_proto::protocol as api;
use serde_json::Value;
use tonic::transport::Channel;

use crate::figures::Figures;
use crate::line::Line;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How long a process may take for anything before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sets how many messages `sync` sends, to try the measurement out.
const SYNCED: &str = "DUNLIN_BENCH_SYNCED";

/// One running node and a client of it.
struct Process {
    child: Child,
    client: ProtocolServiceClient<Channel>,
    address: String,
}

impl Process {
    async fn start(dir: &Path, connect: Option<&str>) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = Command::new(program()?);
        command.args(["--data-dir"]).arg(dir).arg("node");
        command.args(["--name", "bench", "--grpc", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        if let Some(address) = connect {
            command.args(["--connect", address]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("the node has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line)?;
        let grpc = ready.pointer("/grpc").and_then(Value::as_str).ok_or("the node tells no address")?;
        let grpc = grpc.strip_prefix("http://").unwrap_or(grpc);
        let address = ready.pointer("/listen/0").and_then(Value::as_str).ok_or("the node does not listen")?;
        let address = address.to_owned();
        let client = ProtocolServiceClient::connect(format!("http://{grpc}")).await?;
        Ok(Self { child, client, address })
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process as a user would.
    fn stop(mut self) -> Outcome {
        let ended = Command::new("kill").arg(self.id().to_string()).status()?;
        assert!(ended.success(), "the process could be told to end");
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, beside this one.
fn program() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let beside = std::env::current_exe()?.with_file_name("dunlin");
    if !beside.exists() {
        return Err(format!("build the program first: {} is not there", beside.display()).into());
    }
    Ok(beside)
}

/// Send to received, one message at a time, and what an idle node costs.
pub(crate) fn live(figures: &mut Figures) -> Outcome {
    run(live_between_two(figures))
}

async fn live_between_two(figures: &mut Figures) -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut bob = Process::start(&dir.path().join("bob"), None).await?;
    let mut alice = Process::start(&dir.path().join("alice"), Some(&bob.address)).await?;
    let (group, _) = befriend(&mut alice, &mut bob).await?;

    let request =
        api::group_message_list::Request { group_pk: group.clone(), since_now: true, ..Default::default() };
    let mut received = bob.client.group_message_list(request).await?.into_inner();
    let count = 2_000;
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let payload = format!("message {number}").into_bytes();
        let begun = Instant::now();
        let request = api::app_message_send::Request { group_pk: group.clone(), payload: payload.clone() };
        alice.client.app_message_send(request).await?;
        while let Some(event) = received.message().await? {
            if event.message == payload {
                break;
            }
        }
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |share: f64| times.get((count as f64 * share) as usize).copied().unwrap_or_default();
    figures.time("send to received, p50", at(0.50), Duration::from_millis(3));
    figures.beside_go("10.7 ms", 0.0107 / at(0.50).as_secs_f64());
    figures.time("send to received, p99", at(0.99), Duration::from_millis(10));
    figures.beside_go("24.5 ms", 0.0245 / at(0.99).as_secs_f64());

    // Announcements are repeated for some seconds; an idle node is one in which that has ended.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let span = Duration::from_secs(20);
    let before = wakeups(bob.id());
    tokio::time::sleep(span).await;
    let rate = wakeups(bob.id()).saturating_sub(before) as f64 / span.as_secs_f64();
    figures.number("idle, one peer: wake-ups a second", rate, 5.0);
    figures.beside_go("81/s", 81.0 / rate);
    let resident = resident_bytes(bob.id());
    figures.mebibytes("idle, one peer: resident memory", resident, 40.0);
    figures.beside_go("62 MB", 62e6 / resident as f64);
    alice.stop()?;
    bob.stop()
}

/// A member who was away gets 10,000 messages.
pub(crate) fn catch_up(figures: &mut Figures) -> Outcome {
    run(catch_up_after_absence(figures))
}

async fn catch_up_after_absence(figures: &mut Figures) -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut alice = Process::start(&dir.path().join("alice"), None).await?;
    let mut bob = Absent::after_meeting(&mut alice, dir.path().join("bob")).await?;
    let count = 10_000;
    let begun = Instant::now();
    send_many(&alice, &bob.group, count).await?;
    figures.rate("send with nobody there, 8 callers", count, begun.elapsed(), 0.0);
    let caught_up = bob.catch_up(&alice.address, count).await?;
    figures.time(
        "catch up on 10,000 messages, process start included",
        caught_up.took,
        Duration::from_secs(4),
    );
    figures.beside_go("56.6 s", 56.6 / caught_up.took.as_secs_f64());
    figures.mebibytes("  peak resident memory", caught_up.peak, 80.0);
    figures.beside_go("274 MB", 274e6 / caught_up.peak as f64);
    alice.stop()
}

/// A member who was away gets 100,000 messages: beside the one who has them, and over a line of 20 Mbit/s.
pub(crate) fn sync(figures: &mut Figures) -> Outcome {
    run(sync_much(figures))
}

async fn sync_much(figures: &mut Figures) -> Outcome {
    let count = std::env::var(SYNCED).ok().and_then(|text| text.parse().ok()).unwrap_or(100_000_usize);
    let dir = tempfile::tempdir()?;
    let mut alice = Process::start(&dir.path().join("alice"), None).await?;
    let mut bob = Absent::after_meeting(&mut alice, dir.path().join("bob")).await?;
    send_many(&alice, &bob.group, count / 2).await?;
    let half = bob.catch_up(&alice.address, count / 2).await?;
    send_many(&alice, &bob.group, count).await?;
    let whole = bob.catch_up(&alice.address, count).await?;
    let what = format!("sync {count} entries on loopback, until the last is shown");
    figures.time(&what, whole.took, Duration::from_secs(15));
    figures.mebibytes("  peak resident memory", whole.peak, 80.0);
    figures.number("  time(2n)/time(n)", whole.took.as_secs_f64() / half.took.as_secs_f64(), 2.2);
    send_many(&alice, &bob.group, count).await?;
    let line = Line { bytes_per_second: 20_000_000 / 8, one_way: Duration::from_millis(25) };
    let slow = bob.catch_up(&line.before(&alice.address).await?, count).await?;
    let what = format!("sync {count} entries over 20 Mbit/s, round trip 50 ms");
    figures.time(&what, slow.took, Duration::from_secs(60));
    alice.stop()
}

/// A member of a group whose process does not run.
struct Absent {
    dir: PathBuf,
    group: Vec<u8>,
    /// The last message that it was given.
    last: Vec<u8>,
}

/// What coming back took.
struct CaughtUp {
    took: Duration,
    peak: u64,
}

impl Absent {
    async fn after_meeting(alice: &mut Process, dir: PathBuf) -> Result<Self, Box<dyn std::error::Error>> {
        let mut bob = Process::start(&dir, Some(&alice.address)).await?;
        let (group, last) = befriend(alice, &mut bob).await?;
        bob.stop()?;
        Ok(Self { dir, group, last })
    }

    /// Starts the process, has it find the other at `address`, and waits until it was given `count` messages more.
    async fn catch_up(
        &mut self,
        address: &str,
        count: usize,
    ) -> Result<CaughtUp, Box<dyn std::error::Error>> {
        let begun = Instant::now();
        let mut bob = Process::start(&self.dir, Some(address)).await?;
        activate(&mut bob, &self.group).await?;
        let request = api::group_message_list::Request {
            group_pk: self.group.clone(),
            since_id: self.last.clone(),
            ..Default::default()
        };
        let mut received = bob.client.group_message_list(request).await?.into_inner();
        let mut seen = 0;
        while seen < count {
            let event = received.message().await?.ok_or("the list ended")?;
            let id = event.event_context.ok_or("a message has no place")?.id;
            // A list since a message may begin with that message.
            if id != self.last {
                self.last = id;
                seen += 1;
            }
        }
        let caught_up = CaughtUp { took: begun.elapsed(), peak: peak_bytes(bob.id()) };
        bob.stop()?;
        Ok(caught_up)
    }
}

/// Sends messages by eight callers at once.
async fn send_many(alice: &Process, group: &[u8], count: usize) -> Outcome {
    let mut sending = tokio::task::JoinSet::new();
    for sender in 0..8 {
        let (mut client, group) = (alice.client.clone(), group.to_vec());
        sending.spawn(async move {
            for number in 0..count / 8 {
                let payload = format!("message {sender} {number}").into_bytes();
                let request = api::app_message_send::Request { group_pk: group.clone(), payload };
                client.app_message_send(request).await?;
            }
            Ok::<(), tonic::Status>(())
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(())
}

/// Makes contacts of two nodes; gives the group that they share, ready for messages, and the last message there.
async fn befriend(
    alice: &mut Process,
    bob: &mut Process,
) -> Result<(Vec<u8>, Vec<u8>), Box<dyn std::error::Error>> {
    let alice_pk = alice.client.service_get_configuration(api::service_get_configuration::Request {}).await?;
    let alice_pk = alice_pk.into_inner().account_pk;
    let encoded =
        bob.client.share_contact(api::share_contact::Request {}).await?.into_inner().encoded_contact;
    let decoded =
        bob.client.decode_contact(api::decode_contact::Request { encoded_contact: encoded }).await?;
    let contact = decoded.into_inner().contact.ok_or("no contact came")?;
    let bob_pk = contact.pk.clone();
    let request = api::contact_request_send::Request { contact: Some(contact), own_metadata: Vec::new() };
    alice.client.contact_request_send(request).await?;
    let deadline = Instant::now() + PATIENCE;
    while bob
        .client
        .contact_request_accept(api::contact_request_accept::Request { contact_pk: alice_pk.clone() })
        .await
        .is_err()
    {
        if Instant::now() > deadline {
            return Err("no contact request arrived".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let request = api::group_info::Request { contact_pk: bob_pk, ..Default::default() };
    let info = alice.client.group_info(request).await?.into_inner();
    let group = info.group.ok_or("no group came")?.public_key;
    activate(alice, &group).await?;
    activate(bob, &group).await?;
    // The first message that is read proves that keys were exchanged.
    let request = api::group_message_list::Request { group_pk: group.clone(), ..Default::default() };
    let mut received = bob.client.group_message_list(request).await?.into_inner();
    loop {
        let request = api::app_message_send::Request { group_pk: group.clone(), payload: b"hello".to_vec() };
        let sent = alice.client.app_message_send(request).await?.into_inner().cid;
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(500), received.message()).await {
            let event = event?.ok_or("the list ended")?;
            if event.event_context.is_some_and(|place| place.id == sent) {
                return Ok((group, sent));
            }
        }
        if Instant::now() > deadline {
            return Err("no message arrived".into());
        }
    }
}

async fn activate(process: &mut Process, group: &[u8]) -> Outcome {
    let request = api::activate_group::Request { group_pk: group.to_vec(), local_only: false };
    process.client.activate_group(request).await?;
    Ok(())
}

fn run(part: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(part)
}

/// The resident memory of a process, from `/proc`; zero where there is none.
pub(crate) fn resident_bytes(process: u32) -> u64 {
    kibibytes(process, "VmRSS:") * 1024
}

fn peak_bytes(process: u32) -> u64 {
    kibibytes(process, "VmHWM:") * 1024
}

fn kibibytes(process: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    number(&status, field)
}

/// How often the threads of a process waited and were woken up.
fn wakeups(process: u32) -> u64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let of = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).ok();
    threads.flatten().filter_map(of).map(|status| number(&status, "voluntary_ctxt_switches:")).sum()
}

fn number(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|text| text.parse().ok()).unwrap_or(0)
}
