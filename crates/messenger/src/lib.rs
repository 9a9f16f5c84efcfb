//! Conversations: what a person sees of the Wesh protocol.

pub mod safety;
pub mod text;
