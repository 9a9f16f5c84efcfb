//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::failure::EXIT_CODES;

/// Talk with people without an account or a server.
///
/// Without a command, Dunlin opens the chat in the terminal. A command talks to the node that runs on the
/// data directory: the one of an open chat, or one started with `dunlin node`.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Where the account, its keys and messages are kept [default: ~/.local/share/dunlin].
    #[arg(long, global = true, value_name = "DIR", env = "DUNLIN_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON, one object on each line.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do; without it, the chat opens.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open the chat in the terminal (and start a node, unless one is running).
    Chat(NodeOptions),
    /// Run a node without a screen; prints one line of JSON when it is ready.
    Node(NodeOptions),
    /// The account as a whole: carry it away, delete it.
    #[command(subcommand)]
    Account(AccountCommand),
    /// Contacts and their requests.
    #[command(subcommand)]
    Contact(ContactCommand),
    /// Groups.
    #[command(subcommand)]
    Group(GroupCommand),
    /// The devices of the account: link a new one, name or remove one.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Send a text to a contact or a group.
    Send {
        /// The contact or group.
        conversation: String,
        /// The text; `-` takes it from the standard input.
        #[arg(required = true, allow_hyphen_values = true, trailing_var_arg = true)]
        text: Vec<String>,
    },
    /// Show messages: of one conversation, or all that are unread.
    Read(ReadOptions),
    /// Erase a message from this device, for good. Others keep what they have of it; one of yours that somebody lacks
    /// still goes to them.
    Erase {
        /// A message as `dunlin read` names it.
        message: String,
    },
    /// Who is connected, and over which addresses.
    Peers {
        /// Connect or disconnect one.
        #[command(subcommand)]
        command: Option<PeersCommand>,
    },
    /// Say in one sentence what a message, a request or a conversation waits for.
    Why {
        /// A message as `dunlin read` names it, or a contact or conversation.
        what: String,
    },
    /// Show who this is and what waits.
    Status,
    /// Show the own name, or change it for everybody.
    Name {
        /// The new name.
        name: Option<String>,
    },
}

/// What a node is started with.
#[derive(Args, Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeOptions {
    /// How others see you; asked for at the first start.
    #[arg(long)]
    pub name: Option<String>,
    /// Listen on this multiaddr; may be repeated [default: any free port, on all interfaces].
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,
    /// Stay connected with the peer at this multiaddr; may be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    pub connect: Vec<String>,
    /// Let yourself be found, and look for others, on the rendezvous server at this multiaddr, which ends with
    /// its peer id; may be repeated [default: none]. It learns your address and that you are found by a link.
    #[arg(long, value_name = "MULTIADDR")]
    pub rendezvous: Vec<String>,
    /// Do not tell rendezvous servers which groups you are in. Their names never change, so that a server can
    /// follow who is in a group; without them, members who are not connected otherwise do not find each other.
    #[arg(long)]
    pub hide_groups: bool,
    /// Be reached through the relay at this multiaddr, which ends with its peer id; may be repeated [default:
    /// none].
    #[arg(long, value_name = "MULTIADDR")]
    pub relay: Vec<String>,
    /// Enter the Kademlia DHT through the peer at this multiaddr, which ends with its peer id; may be repeated
    /// [default: none]. Only the changing name behind your link is announced there.
    #[arg(long, value_name = "MULTIADDR")]
    pub dht_bootstrap: Vec<String>,
    /// Be a rendezvous server for others.
    #[arg(long)]
    pub rendezvous_server: bool,
    /// Serve commands on this TCP address of this machine instead of a private socket. Every user of the
    /// machine can then read and write your messages.
    #[arg(long, value_name = "127.0.0.1:PORT")]
    pub grpc: Option<std::net::SocketAddr>,
    /// Let web pages of this origin, such as http://localhost:3000, read and write your messages through the
    /// address above; may be repeated [default: no page].
    #[arg(long, value_name = "ORIGIN", requires = "grpc")]
    pub grpc_origin: Vec<String>,
    /// Which network to be part of; decided at the first start [default: berty].
    #[arg(long)]
    pub profile: Option<ProfileName>,
    /// Take over the account from this archive, which a node has exported (`dunlin account export`, or a Go node); the data
    /// directory has to be new.
    #[arg(long, value_name = "FILE")]
    pub import: Option<PathBuf>,
    /// Open that archive with the first line of this file; the variable DUNLIN_IMPORT_PASSPHRASE does it too. Otherwise it
    /// is asked for.
    #[arg(long, value_name = "FILE", requires = "import")]
    pub import_passphrase_file: Option<PathBuf>,
    /// Become a device of the account that offers this link (`dunlin device link` there); the data directory has
    /// to be new.
    #[arg(long, value_name = "LINK", conflicts_with_all = ["import", "profile"])]
    pub link: Option<String>,
    /// Find nodes on the local network, and be found.
    #[arg(long)]
    pub lan: bool,
    /// Protect the data directory by the first line of this file; the variable DUNLIN_PASSPHRASE does it too.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// What to log, such as `info` or `dunlin_node=debug`: to the standard error, or while the chat is open to
    /// `dunlin.log` in the data directory.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl NodeOptions {
    /// Whether any was given.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

/// The networks that exist.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum ProfileName {
    /// The network of the Berty app.
    #[default]
    Berty,
    /// The network of bare weshnet nodes.
    Wesh,
}

/// What can be done about the account.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Write the account into one encrypted file: keys, contacts, groups, messages. `dunlin node --import FILE` on another
    /// machine makes that one a further device of the account.
    Export {
        /// A file that is not there yet.
        file: PathBuf,
        /// Protect it by the first line of this file; the variable DUNLIN_EXPORT_PASSPHRASE does it too. Otherwise it is
        /// asked for.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Delete the account from this device, for good: its key first, then everything else. A node that runs on it is ended.
    /// Other devices of the account keep it, and nobody is told.
    Delete {
        /// Do not ask whether this is meant.
        #[arg(long)]
        yes: bool,
    },
    /// The same in an emergency: without a question, and the key before anything else.
    Wipe,
}

/// What can be done about contacts.
#[derive(Debug, Subcommand)]
pub enum ContactCommand {
    /// All contacts, and the requests that wait for an answer.
    List,
    /// Ask the owner of a link to become a contact.
    Add {
        /// The link, as they gave it.
        link: String,
        /// For a link that is protected by a passphrase.
        #[arg(long)]
        passphrase: Option<String>,
    },
    /// Accept a request.
    Accept {
        /// Who asks.
        contact: String,
    },
    /// Refuse a request; the other side is not told.
    Refuse {
        /// Who asks.
        contact: String,
    },
    /// Take nothing more from somebody.
    Block {
        /// Whom.
        contact: String,
    },
    /// Undo a block.
    Unblock {
        /// Whom.
        contact: String,
    },
    /// Show the own link, to give to others.
    Link(LinkOptions),
}

/// What can be done about groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// All groups.
    List,
    /// Make a group.
    New {
        /// What it is called.
        name: String,
    },
    /// Invite contacts to a group.
    Invite {
        /// The group.
        group: String,
        /// Whom to invite.
        #[arg(required = true)]
        contacts: Vec<String>,
    },
    /// Join a group.
    Join {
        /// A group link, or a message that carries an invitation.
        link: String,
        /// For a link that is protected by a passphrase.
        #[arg(long)]
        passphrase: Option<String>,
    },
    /// Leave a group; what was received stays readable.
    Leave {
        /// The group.
        group: String,
    },
    /// Name a group for all its members.
    Rename {
        /// The group.
        group: String,
        /// What it is called from now on.
        name: String,
    },
    /// Who is in a group.
    Members {
        /// The group.
        group: String,
    },
    /// Show the link of a group. Whoever has it can read and join.
    Link {
        /// The group.
        group: String,
        /// How to show it.
        #[command(flatten)]
        options: LinkOptions,
    },
}

/// What can be done about devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// All devices of the account.
    List,
    /// Offer the account to a new device: shows what it needs, and waits until it is linked.
    Link,
    /// Type the code that the new device shows; only then it gets the account.
    Confirm {
        /// Six digits.
        #[arg(required = true)]
        code: Vec<String>,
    },
    /// Become a device of the account that offers this link, in an empty data directory.
    Join {
        /// What `dunlin device link` shows on the other device.
        link: String,
        /// Protect the data directory by the first line of this file; the variable DUNLIN_PASSPHRASE does it too.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Name a device: this one, or another.
    Name {
        /// The name.
        name: String,
        /// Which device: a beginning of its id, or its name [default: this one].
        #[arg(long, value_name = "DEVICE")]
        device: Option<String>,
    },
    /// Take a device out of the account, for ever. Read what it says: it is no lock.
    Remove {
        /// Which: a beginning of its id, or its name.
        device: String,
    },
}

/// How a link is shown.
#[derive(Args, Debug)]
pub struct LinkOptions {
    /// Draw it as a QR code.
    #[arg(long)]
    pub qr: bool,
    /// Protect it: nobody can use it without this passphrase.
    #[arg(long)]
    pub passphrase: Option<String>,
}

/// Which messages are shown.
#[derive(Args, Debug)]
pub struct ReadOptions {
    /// The contact or group; without it, all unread messages.
    pub conversation: Option<String>,
    /// Go on with what arrives and changes.
    #[arg(long)]
    pub follow: bool,
    /// At most so many messages of the past.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Only messages before this one.
    #[arg(long, value_name = "MESSAGE", requires = "conversation")]
    pub before: Option<String>,
    /// Only messages after this one.
    #[arg(long, value_name = "MESSAGE", requires = "conversation", conflicts_with = "before")]
    pub after: Option<String>,
    /// Leave them unread.
    #[arg(long)]
    pub peek: bool,
}

/// What can be done about peers.
#[derive(Debug, Subcommand)]
pub enum PeersCommand {
    /// Connect with the peer at an address, and stay connected.
    Connect {
        /// Such as `/ip4/192.168.1.7/tcp/4001/p2p/12D3Koo…`.
        multiaddr: String,
    },
    /// Close the connections with a peer.
    Disconnect {
        /// The peer id.
        peer: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_text_may_begin_with_a_dash() {
        let cli = Cli::parse_from(["dunlin", "send", "Ben", "-", "--json"]);
        let Some(Command::Send { text, .. }) = cli.command else { panic!("not a send") };
        assert_eq!(text, ["-", "--json"]);
    }

    #[test]
    fn global_options_stand_anywhere() {
        let cli = Cli::parse_from(["dunlin", "contact", "list", "--json", "--data-dir", "/d"]);
        assert!(cli.json);
        assert_eq!(cli.data_dir, Some(PathBuf::from("/d")));
    }
}
