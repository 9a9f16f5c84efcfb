//! `dunlin device`: the devices of the account.

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;

use crate::cli::{DeviceCommand, NodeOptions};
use crate::client::Client;
use crate::daemon::Running;
use crate::failure::{Exit, Failure, as_sentence};
use crate::home::Home;
use crate::output::Output;
use dunlin_proto::chat::{DevicesSeenRequest, GetProfileRequest, StatusRequest};
use dunlin_proto::dunlin::device::v1::link_reply::Event;
use dunlin_proto::dunlin::device::v1::{
    ConfirmRequest, Device, LinkRequest, ListRequest, NameRequest, RemoveRequest,
};

/// Digits of an id that tables show: enough to tell the devices of one account apart.
const SHOWN_ID_DIGITS: usize = 8;

/// What removing comes to, in words.
const NO_LOCK: &str = "\
Your devices that run Dunlin give it nothing more, and what it says about your devices counts for nothing.
It is no lock. It still holds the keys of your account: it can write in your name and read what reaches it by way
of others, and Berty and other Go programs treat it as before. If it was stolen, make a new account and tell your
contacts.";

type Outcome = Result<(), Failure>;

pub async fn run(home: &Home, command: DeviceCommand, out: &mut Output) -> Outcome {
    match command {
        DeviceCommand::List => list(Client::connect(home).await?, out).await,
        DeviceCommand::Link => link(Client::connect(home).await?, out).await,
        DeviceCommand::Confirm { code } => {
            confirm(&mut Client::connect(home).await?, code.concat()).await?;
            out.say(json!({ "confirmed": true }), "The code is right. The account is on its way.")
        }
        DeviceCommand::Join { link, passphrase_file } => join(home, link, passphrase_file, out).await,
        DeviceCommand::Name { name, device } => {
            let request = NameRequest { device: device.unwrap_or_default(), name };
            let device = Client::connect(home).await?.device.name(request).await?.into_inner();
            out.say(of_device(&device), format!("{} is called {} now.", short(&device), device.name))
        }
        DeviceCommand::Remove { device } => {
            let request = RemoveRequest { device };
            let device = Client::connect(home).await?.device.remove(request).await?.into_inner();
            out.say(of_device(&device), format!("{} is removed. {NO_LOCK}", called(&device)))
        }
    }
}

async fn list(mut client: Client, out: &mut Output) -> Outcome {
    let devices = client.device.list(ListRequest {}).await?.into_inner().devices;
    let new = client.chat.status(StatusRequest {}).await?.into_inner().devices_new;
    client.chat.devices_seen(DevicesSeenRequest {}).await?;
    let zone = out.zone().clone();
    let row = |device: &Device| {
        let added = if device.added_ms > 0 { zone.moment(device.added_ms) } else { String::new() };
        let standing = match (device.own, device.removed) {
            (true, true) => "this one, removed",
            (true, false) => "this one",
            (false, true) => "removed",
            (false, false) if new.contains(&device.id) => "new since you last looked",
            (false, false) if device.online => "in reach",
            (false, false) => "",
        };
        vec![short(device), device.name.clone(), added, standing.to_owned()]
    };
    out.list(devices.iter().map(of_device).collect(), devices.iter().map(row).collect(), "No devices yet.")
}

/// Offers the account and shows what becomes of it. At a terminal the code can be typed here.
async fn link(mut client: Client, out: &mut Output) -> Outcome {
    let owner = client.chat.get_profile(GetProfileRequest {}).await?.into_inner().name;
    let mut events = client.device.link(LinkRequest { owner }).await?.into_inner();
    let mut typed: Option<oneshot::Receiver<String>> = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            code = line(&mut typed) => {
                typed = None;
                if let Err(failure) = confirm(&mut client, code).await {
                    eprintln!("{failure}");
                    typed = ask_code();
                }
                continue;
            }
        };
        let Some(event) = event.transpose()?.and_then(|reply| reply.event) else {
            return Err(Failure::told(
                "The node ended while it offered the link. Start it again: dunlin node.",
            ));
        };
        match event {
            Event::Offered(offered) => {
                let object =
                    json!({ "event": "offered", "link": offered.link, "expires_ms": offered.expires_ms });
                out.device_link(object, &offered.link)?;
            }
            Event::Code(code) => {
                let told = format!(
                    "A new device wants to join, and shows a code. Here it is {code}.\nIf both are the same, type \
                     the one that the new device shows: dunlin device confirm {}",
                    code.replace(' ', "")
                );
                out.say(json!({ "event": "code", "code": code }), told)?;
                typed = ask_code();
            }
            Event::Linked(_) => {
                return out.say(
                    json!({ "event": "linked" }),
                    "The new device has the account, and fetches the conversations now. Leave this one on meanwhile.",
                );
            }
            Event::Failed(sentence) => return Err(Failure::new(Exit::Refused, as_sentence(&sentence))),
        }
    }
}

async fn confirm(client: &mut Client, code: String) -> Outcome {
    client.device.confirm(ConfirmRequest { code }).await?;
    Ok(())
}

/// Asks for the code if somebody is there. The thread ends with the process: nobody waits for a line that
/// does not come.
fn ask_code() -> Option<oneshot::Receiver<String>> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let (sender, typed) = oneshot::channel();
    std::thread::spawn(move || {
        eprint!("The code on the new device: ");
        let _ = io::stderr().flush();
        let mut line = String::new();
        if io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            let _ = sender.send(line);
        }
    });
    Some(typed)
}

/// What was typed; for ever when nobody is asked.
async fn line(typed: &mut Option<oneshot::Receiver<String>>) -> String {
    match typed {
        Some(receiver) => match receiver.await {
            Ok(line) => line,
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Takes the account over, and leaves the directory ready for `dunlin node`.
async fn join(
    home: &Home,
    link: String,
    passphrase_file: Option<std::path::PathBuf>,
    out: &mut Output,
) -> Outcome {
    let options = NodeOptions { link: Some(link), passphrase_file, ..NodeOptions::default() };
    let running = Running::start(home, &options).await?;
    let profile = running.client().await?.chat.get_profile(GetProfileRequest {}).await;
    running.stop().await;
    let profile = profile?.into_inner();
    let told = format!(
        "This is a device of {} now. Start it with `dunlin node`, or open the chat with `dunlin`: it fetches the \
         conversations from the other device while both are on.",
        profile.name
    );
    out.say(json!({ "account": profile.id, "name": profile.name }), told)
}

fn of_device(device: &Device) -> Value {
    json!({
        "id": device.id,
        "name": device.name,
        "added_ms": device.added_ms,
        "own": device.own,
        "removed": device.removed,
        "removed_ms": device.removed_ms,
        "online": device.online,
    })
}

fn short(device: &Device) -> String {
    device.id.get(..SHOWN_ID_DIGITS).unwrap_or(&device.id).to_owned()
}

fn called(device: &Device) -> String {
    if device.name.is_empty() { short(device) } else { device.name.clone() }
}
