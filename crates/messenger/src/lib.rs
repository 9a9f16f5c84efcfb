//! Conversations: what a person sees of the Wesh protocol.

pub mod app_message;
pub mod links;
pub mod safety;
pub mod text;
