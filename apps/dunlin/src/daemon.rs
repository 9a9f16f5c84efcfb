//! A node in this process: `dunlin node`, and the chat when no node is running.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dunlin_messenger::Messenger;
use dunlin_messenger::rpc::chat_service_server::SERVICE_NAME as CHAT_SERVICE_NAME;
use dunlin_messenger::text::DisplayName;
use dunlin_node::{
    Claim, CoreError, FileBeside, FoundArchive, ImportError, JoinAccountError, JoinNews, Joined, LockedFile,
    NodeConfig, NodeHandle, Origins, StartError,
};
use dunlin_store::{OpenError, RedbStore};
use dunlin_wesh::archive::{Imported, Opener, SealedArchiveError};
use dunlin_wesh::linking::LinkText;
use dunlin_wesh::profile::Profile;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use zeroize::Zeroizing;

use crate::cli::{NodeOptions, ProfileName};
use crate::client::Client;
use crate::failure::{Exit, Failure, as_sentence};
use crate::home::{Config, Home, NodeFile, SocketPlace};
use crate::passphrase;
use crate::stop::Stop;
use dunlin_proto::chat::{GetProfileRequest, LinkForm, LinkRequest, SetNameRequest};

/// Where a node listens unless told otherwise: any free port, on all interfaces.
const LISTEN: [&str; 4] =
    ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"];
/// How long calls that are under way may take when the node ends. Those that follow never end by themselves.
const LAST_CALLS: Duration = Duration::from_millis(500);

/// A node that serves commands.
pub struct Running {
    node: NodeHandle<Messenger>,
    home: Home,
    grpc: String,
    stop_serving: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    // Cleared when this is dropped.
    _socket: Option<SocketPlace>,
}

/// Runs a node until the process is asked to end.
pub async fn run(home: &Home, options: &NodeOptions) -> Result<(), Failure> {
    let mut stop = stop()?;
    let mut running = Running::start(home, options).await?;
    println!("{}", running.ready_line().await?);
    let ended = tokio::select! {
        () = stop.wait() => Ok(()),
        served = &mut running.serving => {
            Err(Failure::told(format!("Commands cannot be served any more: {served:?}. Start the node again.")))
        }
    };
    running.stop().await;
    ended
}

/// Takes over the signals that end the process.
pub fn stop() -> Result<Stop, Failure> {
    Stop::new().map_err(|error| Failure::told(format!("Signals cannot be handled: {error}.")))
}

impl Running {
    /// Opens the data directory, starts the node and serves commands.
    pub async fn start(home: &Home, options: &NodeOptions) -> Result<Self, Failure> {
        home.prepare()?;
        let config = home.config()?;
        let link = options.link.as_deref().map(checked_link).transpose()?;
        // A link brings the name along.
        let asked = if link.is_some() {
            options.name.as_deref().map(checked_name).transpose()?
        } else {
            chosen_name(home, options.name.as_deref())?
        };
        let store = open_store(home, options).await?;
        let (store, name, reach) = match link {
            Some(link) => {
                let store = Arc::new(store);
                let joined = join(home, store.clone(), link).await?;
                home.remember_connect(&joined.addresses.iter().map(ToString::to_string).collect::<Vec<_>>())?;
                let name = asked.or(DisplayName::received(&joined.card.name).map(|name| name.to_string()));
                (store, name, joined.addresses)
            }
            None => match options.import.clone() {
                Some(archive) => {
                    let profile = home.settle_profile(options.profile)?;
                    let passphrase = passphrase::of_archive(options)?;
                    (Arc::new(import(store, profile, archive, passphrase).await?), asked, Vec::new())
                }
                None => (Arc::new(store), asked, Vec::new()),
            },
        };
        let profile = home.settle_profile(options.profile)?;
        let store = claimed(store, home).await?;
        let mut node_config = node_config(store, profile, config, options)?;
        node_config.connect.extend(reach);
        let node = NodeHandle::start(node_config, Messenger::new).await.map_err(not_started)?;
        match Self::serve(node.clone(), home, options).await {
            Ok(running) => running.named(name).await,
            Err(failure) => {
                node.shutdown().await;
                Err(failure)
            }
        }
    }

    /// Listens for commands, and tells in the data directory where.
    async fn serve(node: NodeHandle<Messenger>, home: &Home, options: &NodeOptions) -> Result<Self, Failure> {
        let chat = dunlin_messenger::chat_service(&node);
        let routes = dunlin_node::routes_beside(&node, &[CHAT_SERVICE_NAME]).add_service(chat);
        let origins = Origins::new(&options.grpc_origin)
            .map_err(|error| Failure::new(Exit::Usage, as_sentence(&error.to_string())))?;
        let (stop_serving, stopped) = oneshot::channel();
        let (grpc, serving, socket) = match options.grpc {
            Some(address) => {
                let (grpc, serving) = serve_tcp(address, routes, origins, stopped).await?;
                (grpc, serving, None)
            }
            None => serve_privately(home, routes, origins, stopped).await?,
        };
        home.announce(&NodeFile {
            grpc: grpc.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })?;
        Ok(Self { node, home: home.clone(), grpc, stop_serving, serving, _socket: socket })
    }

    /// Gives the account the name that the user chose, unless it has it.
    async fn named(self, name: Option<String>) -> Result<Self, Failure> {
        let mut client = self.client().await?;
        let kept = client.chat.get_profile(GetProfileRequest {}).await?.into_inner().name;
        let name = match name {
            // The first start ended before the name was kept.
            None if kept.is_empty() => Some(ask_name()?),
            name => name,
        };
        if let Some(name) = name.filter(|name| *name != kept) {
            client.chat.set_name(SetNameRequest { name }).await?;
        }
        Ok(self)
    }

    /// Ends the node: what was begun is kept, peers are told.
    pub async fn stop(self) {
        self.home.withdraw();
        // The server may have ended already.
        let _ = self.stop_serving.send(());
        self.node.shutdown().await;
        let abort = self.serving.abort_handle();
        if tokio::time::timeout(LAST_CALLS, self.serving).await.is_err() {
            abort.abort();
        }
    }

    /// Calls to this node.
    pub async fn client(&self) -> Result<Client, Failure> {
        let client = Client::at(&self.grpc).await;
        client.ok_or_else(|| Failure::told(format!("The node cannot be reached on {}.", self.grpc)))
    }

    /// What a script needs to know about the node, in one line of JSON.
    async fn ready_line(&self) -> Result<String, Failure> {
        let mut client = self.client().await?;
        let profile = client.chat.get_profile(GetProfileRequest {}).await?.into_inner();
        let request = LinkRequest { form: LinkForm::Web.into(), ..LinkRequest::default() };
        let link = client.chat.link(request).await?.into_inner().link;
        let listen: Vec<String> = self.node.addresses().iter().map(ToString::to_string).collect();
        let ready = json!({
            "grpc": self.grpc,
            "peer_id": self.node.network().peer_id().to_string(),
            "listen": listen,
            "link": link,
            "account": profile.id,
            "name": profile.name,
        });
        Ok(ready.to_string())
    }
}

/// The name for the account: the one given, or at the first start the one that the user types.
fn chosen_name(home: &Home, given: Option<&str>) -> Result<Option<String>, Failure> {
    match given {
        Some(name) => checked_name(name).map(Some),
        None if home.is_first_start() => ask_name().map(Some),
        None => Ok(None),
    }
}

fn ask_name() -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        let told =
            "This is the first start, and nobody is there to be asked for a name. Give it: --name NAME.";
        return Err(Failure::new(Exit::Usage, told));
    }
    let unreadable = |error: io::Error| Failure::told(format!("The name cannot be read: {error}."));
    loop {
        eprint!("Your name, as others will see it: ");
        io::stderr().flush().map_err(unreadable)?;
        let mut name = String::new();
        if io::stdin().read_line(&mut name).map_err(unreadable)? == 0 {
            return Err(Failure::new(Exit::Usage, "An account needs a name. Give it: --name NAME."));
        }
        match checked_name(&name) {
            Ok(name) => return Ok(name),
            Err(failure) => eprintln!("{failure}"),
        }
    }
}

fn checked_name(name: &str) -> Result<String, Failure> {
    let name = DisplayName::chosen(name);
    name.map(|name| name.to_string())
        .map_err(|error| Failure::new(Exit::Usage, as_sentence(&error.to_string())))
}

/// Opens the store, and asks for its passphrase if there is somebody to ask.
async fn open_store(home: &Home, options: &NodeOptions) -> Result<RedbStore, Failure> {
    let mut unlock = passphrase::given(options)?;
    loop {
        let directory = home.path().to_owned();
        // The passphrase is made slow to try on purpose, and the disk may be slow without one.
        let opened = tokio::task::spawn_blocking(move || dunlin_store::open(&directory, &unlock)).await;
        let opened = opened.map_err(|error| Failure::told(format!("Opening the store failed: {error}.")))?;
        match opened {
            Ok(store) => return Ok(store),
            Err(OpenError::PassphraseRequired) if io::stdin().is_terminal() => unlock = passphrase::ask()?,
            Err(error) => return Err(not_opened(home, error)),
        }
    }
}

fn not_opened(home: &Home, error: OpenError) -> Failure {
    let path = home.path().display();
    let told = match error {
        OpenError::InUse => format!(
            "Another Dunlin is running on {path}. Commands and `dunlin` talk to it; to run a second node, \
             use another directory: --data-dir DIR."
        ),
        OpenError::PassphraseRequired => format!(
            "{path} is protected by a passphrase. Give it in the variable DUNLIN_PASSPHRASE or by --passphrase-file FILE."
        ),
        OpenError::PassphraseNotSet => {
            format!(
                "{path} is not protected by a passphrase. Start without one, or use another directory: --data-dir DIR."
            )
        }
        OpenError::WrongPassphrase => format!("The passphrase does not open {path}. Try again."),
        OpenError::NewerFormat { .. } | OpenError::NewerSchema { .. } => {
            format!("{path} was written by a newer Dunlin. Update this one; nothing was changed.")
        }
        OpenError::UnreleasedSchema { .. } => format!(
            "{path} was written by a build from before the first release, which this one cannot read. Use another \
             directory: --data-dir DIR. Nothing was changed."
        ),
        OpenError::KeyMissing => format!(
            "The file `key` is missing in {path}, and without it nothing there can be read. Put it back, or use \
             another directory: --data-dir DIR."
        ),
        OpenError::Io(error) => return Failure::disk(format_args!("Opening {path}"), &error),
        error => format!(
            "{path} cannot be opened. {} Restore it from a copy, or use another directory: --data-dir DIR.",
            as_sentence(&error.to_string())
        ),
    };
    Failure::new(Exit::DataDir, told)
}

/// Puts together what the command line, the directory and the defaults say, in this order.
fn node_config(
    store: Arc<RedbStore>,
    profile: ProfileName,
    config: Config,
    options: &NodeOptions,
) -> Result<NodeConfig, Failure> {
    let either = |typed: &[String], kept: Vec<String>| if typed.is_empty() { kept } else { typed.to_vec() };
    let mut listen = either(&options.listen, config.listen);
    if listen.is_empty() {
        listen = LISTEN.map(str::to_owned).to_vec();
    }
    let mut node = NodeConfig::new(store);
    node.profile = profile_of(profile);
    node.listen = parsed(&listen)?;
    node.connect = parsed(&either(&options.connect, config.connect))?;
    node.lan = options.lan || config.lan;
    node.rendezvous = places(&either(&options.rendezvous, config.rendezvous))?;
    node.announce_groups = !(options.hide_groups || config.hide_groups);
    node.relays = places(&either(&options.relay, config.relay))?;
    node.dht_bootstrap = places(&either(&options.dht_bootstrap, config.dht_bootstrap))?;
    node.rendezvous_server = options.rendezvous_server || config.rendezvous_server;
    Ok(node)
}

fn profile_of(name: ProfileName) -> Profile {
    match name {
        ProfileName::Berty => Profile::Berty,
        ProfileName::Wesh => Profile::Wesh,
    }
}

/// Finds out whether the data directory is a copy. Then the account goes on as a new device, and the user is told.
async fn claimed(store: Arc<RedbStore>, home: &Home) -> Result<Arc<RedbStore>, Failure> {
    let Some(beside) = FileBeside::of(home.path()) else { return Ok(store) };
    let claimed = tokio::task::spawn_blocking(move || {
        let claim = dunlin_node::claim(&*store, &beside)?;
        Ok::<_, CoreError>((store, claim))
    });
    let failed =
        |error: &dyn std::fmt::Display| Failure::told(format!("The data directory cannot be used: {error}."));
    let (store, claim) = claimed.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    if claim == Claim::Copied {
        eprintln!(
            "{} is a copy of a data directory, was moved, or came back from a backup. Its old keys may be in use, so this \
             node goes on as a new device of the account; contacts and groups learn of it by themselves.",
            home.path().display()
        );
    }
    Ok(store)
}

/// Takes over the account of an archive, and says what came of it.
async fn import(
    store: RedbStore,
    profile: ProfileName,
    archive: PathBuf,
    passphrase: Option<Zeroizing<String>>,
) -> Result<RedbStore, Failure> {
    let shown = archive.display().to_string();
    let imported = tokio::task::spawn_blocking(move || {
        let profile = profile_of(profile);
        let imported = match dunlin_node::find_archive(std::fs::File::open(&archive)?)? {
            FoundArchive::Clear(mut clear) => dunlin_node::import_archive(&store, profile, &mut clear)?,
            FoundArchive::Locked(locked) => {
                let opener = opener(&locked, passphrase)?;
                dunlin_node::import_archive(&store, profile, &mut locked.open(opener))?
            }
        };
        Ok::<_, ArchiveFailure>((store, imported))
    });
    let imported = imported.await.map_err(|error| Failure::told(format!("Importing failed: {error}.")))?;
    let (store, imported) = imported.map_err(|failure| {
        let error = match failure {
            ArchiveFailure::Import(error) => error,
            ArchiveFailure::Told(failure) => return failure,
        };
        let told = format!(
            "{shown} was not imported: {error}. Nothing is changed in an account that exists; for another try use a new \
             directory: --data-dir DIR."
        );
        Failure::new(Exit::Refused, told)
    })?;
    let Imported { entries, refused, left_out, heads_missing } = imported;
    eprintln!(
        "{shown}: {entries} entries imported, {refused} refused, {left_out} files passed over, {heads_missing} \
         entries missing."
    );
    Ok(store)
}

/// Why an archive was not imported.
#[derive(Debug, thiserror::Error)]
enum ArchiveFailure {
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Told(#[from] Failure),
}

impl From<io::Error> for ArchiveFailure {
    fn from(error: io::Error) -> Self {
        Self::Import(error.into())
    }
}

/// Opens a locked archive with the passphrase that was given, or else with the one that is typed.
fn opener(
    locked: &LockedFile<std::fs::File>,
    given: Option<Zeroizing<String>>,
) -> Result<Opener, ArchiveFailure> {
    if let Some(given) = given {
        return Ok(locked.try_passphrase(&given).map_err(ImportError::from)?);
    }
    if !io::stdin().is_terminal() {
        let told = "The archive is protected by a passphrase. Give it in the variable DUNLIN_IMPORT_PASSPHRASE or by \
                    --import-passphrase-file FILE.";
        return Err(Failure::new(Exit::Usage, told).into());
    }
    loop {
        let Some(typed) = passphrase::ask_line("Passphrase of the archive: ")? else {
            return Err(
                Failure::new(Exit::Refused, "The archive stays closed without its passphrase.").into()
            );
        };
        match locked.try_passphrase(&typed) {
            Err(error @ SealedArchiveError::WrongPassphrase) => {
                eprintln!("{}", as_sentence(&error.to_string()))
            }
            opened => return Ok(opened.map_err(ImportError::from)?),
        }
    }
}

/// Parses the multiaddrs of servers, of which each has to say who it is.
fn places<A: std::str::FromStr>(addresses: &[String]) -> Result<Vec<A>, Failure> {
    let places = parsed(addresses)?;
    for place in addresses {
        if place.rsplit('/').nth(1) != Some("p2p") {
            let told = format!(
                "{place} does not say who is there. Put /p2p/ and the peer id of the server behind it."
            );
            return Err(Failure::new(Exit::Usage, told));
        }
    }
    Ok(places)
}

/// Reads a device link.
fn checked_link(text: &str) -> Result<LinkText, Failure> {
    LinkText::parse(text).map_err(|error| Failure::new(Exit::Usage, as_sentence(&error.to_string())))
}

/// Takes over the account of a link, once its owner typed the code on the other device.
async fn join(home: &Home, store: Arc<RedbStore>, link: LinkText) -> Result<Joined, Failure> {
    let mut unsettled = None;
    let joined = dunlin_node::join_account(store, link, |news| match news {
        JoinNews::Code(code) => {
            eprintln!(
                "The code is {code}. If the other device shows the same, type it there: dunlin device confirm {}",
                code.to_string().replace(' ', "")
            );
        }
        JoinNews::Card(card) => unsettled = home.settle_profile(Some(name_of(card.profile))).err(),
    });
    let joined = joined.await.map_err(|error| {
        let exit = match &error {
            JoinAccountError::Store(_) => Exit::DataDir,
            _ => Exit::Refused,
        };
        Failure::new(exit, as_sentence(&error.to_string()))
    })?;
    unsettled.map_or(Ok(joined), Err)
}

fn name_of(profile: Profile) -> ProfileName {
    match profile {
        Profile::Berty => ProfileName::Berty,
        Profile::Wesh => ProfileName::Wesh,
    }
}

/// Parses multiaddrs.
fn parsed<A: std::str::FromStr>(addresses: &[String]) -> Result<Vec<A>, Failure> {
    let parse = |address: &String| {
        address.parse().map_err(|_| {
            let told = format!(
                "{address} is no multiaddr. One looks like /ip4/192.168.1.7/tcp/4001, or with /p2p/ and a peer id behind it."
            );
            Failure::new(Exit::Usage, told)
        })
    };
    addresses.iter().map(parse).collect()
}

fn not_started(error: StartError) -> Failure {
    match error {
        StartError::Network(error) => Failure::told(format!(
            "The network cannot be used: {error}. If an address is in use, listen on another one: --listen MULTIADDR."
        )),
        StartError::Core(error) => Failure::new(
            Exit::DataDir,
            format!(
                "The account cannot be opened: {error}. Restore the data directory from a copy, or use another one."
            ),
        ),
        error => Failure::told(format!("The node cannot be started: {error}.")),
    }
}

/// Serves where every user of the machine can call.
async fn serve_tcp(
    address: std::net::SocketAddr,
    routes: Routes,
    origins: Origins,
    stopped: oneshot::Receiver<()>,
) -> Result<(String, JoinHandle<Result<(), tonic::transport::Error>>), Failure> {
    let cannot = |error: io::Error| {
        Failure::told(format!(
            "Commands cannot be served on {address}: {error}. Use another one: --grpc 127.0.0.1:0."
        ))
    };
    if !address.ip().is_loopback() {
        let told = format!(
            "{address} can be reached from other machines, and whoever reaches it could read and write your messages. \
             Use an address of this machine alone: --grpc 127.0.0.1:{}.",
            address.port()
        );
        return Err(Failure::new(Exit::Usage, told));
    }
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    let incoming = TcpListenerStream::new(listener);
    let serving = dunlin_node::serve(routes, incoming, origins, ended(stopped));
    Ok((format!("http://{bound}"), tokio::spawn(serving)))
}

type Served = (String, JoinHandle<Result<(), tonic::transport::Error>>, Option<SocketPlace>);

/// Serves where only the user can call: on a socket that nobody else may open.
#[cfg(unix)]
async fn serve_privately(
    home: &Home,
    routes: Routes,
    origins: Origins,
    stopped: oneshot::Receiver<()>,
) -> Result<Served, Failure> {
    use std::os::unix::fs::PermissionsExt;
    use tokio::net::UnixListener;
    use tokio_stream::wrappers::UnixListenerStream;

    let socket = home.socket_place()?;
    let cannot =
        |error: io::Error| Failure::disk(format_args!("Listening on {}", socket.path().display()), &error);
    // Nobody else can enter the directory, so there is no moment at which others may call.
    let listener = UnixListener::bind(socket.path()).map_err(cannot)?;
    std::fs::set_permissions(socket.path(), std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    let incoming = UnixListenerStream::new(listener);
    let serving = dunlin_node::serve(routes, incoming, origins, ended(stopped));
    Ok((socket.address(), tokio::spawn(serving), Some(socket)))
}

/// Serves on a port of the machine, for lack of private sockets.
#[cfg(not(unix))]
async fn serve_privately(
    _: &Home,
    routes: Routes,
    origins: Origins,
    stopped: oneshot::Receiver<()>,
) -> Result<Served, Failure> {
    let (grpc, serving) = serve_tcp(([127, 0, 0, 1], 0).into(), routes, origins, stopped).await?;
    Ok((grpc, serving, None))
}

async fn ended(stopped: oneshot::Receiver<()>) {
    // A sender that is gone means the same.
    let _ = stopped.await;
}
