//! What the screen is told, and what it asks of whoever drives it.

use crossterm::event::KeyEvent;
use dunlin_proto::chat::notice::Notice;
use dunlin_proto::chat::{Contact, Conversation, Gap, Member, Message, Profile};
use ratatui::layout::Size;

use super::thread::Page;

/// What happens to the screen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Pasted(String),
    /// The terminal has another size.
    Resized(Size),
    /// A call that the screen asked for has an answer.
    Answered(CallId, Result<Answer, Refusal>),
    /// Something changed in the node.
    Noticed(Notice),
    /// The node does not tell changes any more.
    Lost,
}

/// What the loop should do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Call the node, and come back with [`Event::Answered`].
    Call(CallId, Call),
    /// Put a text on the clipboard, if the terminal lets us.
    Copy(String),
    /// End the program.
    Quit,
}

/// Names a call.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct CallId(pub(super) u64);

/// What the node is asked to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Call {
    /// Everything that the list shows.
    Load,
    /// A page of a conversation.
    Read { conversation: String, page: Page },
    /// The user has seen a conversation.
    MarkRead { conversation: String },
    /// Send a text.
    Send { conversation: String, text: String },
    /// Ask the owner of a link.
    ContactAdd { link: String, passphrase: String },
    /// Accept a request.
    ContactAccept { contact: String },
    /// Refuse a request.
    ContactRefuse { contact: String },
    /// Block somebody.
    ContactBlock { contact: String },
    /// Undo a block.
    ContactUnblock { contact: String },
    /// Make a group.
    GroupNew { name: String },
    /// Invite contacts.
    GroupInvite { conversation: String, contacts: Vec<String> },
    /// Join a group.
    GroupJoin { link: String, passphrase: String },
    /// Leave a group.
    GroupLeave { conversation: String },
    /// The link of a group, or the own one when `conversation` is empty, in both forms.
    Link { conversation: String },
    /// Who is in a conversation.
    Members { conversation: String },
    /// What a message, contact or conversation waits for.
    Why { what: String },
    /// Erase a message from this device.
    Erase { message: String },
}

/// What the node answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Call::Load`].
    Loaded { profile: Profile, contacts: Vec<Contact>, conversations: Vec<Conversation> },
    /// To [`Call::Read`].
    Messages { conversation: String, page: Page, messages: Vec<Message>, gaps: Vec<Gap> },
    /// To [`Call::Send`].
    Sent(Message),
    /// A contact as it is now.
    Contact(Contact),
    /// The request of this account is gone.
    Refused(String),
    /// This account is not blocked any more, and nothing else either.
    Unblocked(String),
    /// A group that was made or joined.
    Entered(Conversation),
    /// A conversation as it is now.
    Conversation(Conversation),
    /// So many invitations were sent.
    Invited(usize),
    /// To [`Call::Link`].
    Link { link: String, qr_link: String },
    /// To [`Call::Members`].
    Members(Vec<Member>),
    /// To [`Call::Why`].
    Why(String),
    /// This message is erased.
    Erased { message: String },
}

/// Why the node did not do it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The one word for programs.
    pub reason: String,
    /// The sentence for the user.
    pub sentence: String,
}
