//! What lives above the engine, in the same transaction.

use super::{Ctx, Engine, Event};
use dunlin_base::Time;

/// An application on top of the engine: it folds events into state of its own and sends in return.
///
/// All of it happens inside the transaction of the input that caused the event. So the application's state
/// and the log never disagree after a crash, and no event is seen twice or missed.
pub trait App {
    /// What it tells those who watch it, after the commit.
    type Notice: Clone + Send + 'static;

    /// Called once after the engine was opened, before the first input.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn start(&mut self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine)
    -> Result<(), dunlin_base::kv::ReadError>;

    /// Takes one event.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn handle_event(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        event: &Event,
    ) -> Result<(), dunlin_base::kv::ReadError>;

    /// Lets time pass; called at or after [`Self::timeout`].
    ///
    /// # Errors
    /// When the store cannot be read.
    fn handle_timeout(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
    ) -> Result<(), dunlin_base::kv::ReadError>;

    /// The next moment at which it wants to be called, if any.
    fn timeout(&self) -> Option<Time>;

    /// Drains the next thing that watchers should hear.
    fn poll_notice(&mut self) -> Option<Self::Notice>;
}

/// No application: for a node that serves the protocol alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoApp;

impl App for NoApp {
    type Notice = std::convert::Infallible;

    fn start(&mut self, _: &mut Ctx<'_, '_>, _: &mut Engine) -> Result<(), dunlin_base::kv::ReadError> {
        Ok(())
    }

    fn handle_event(
        &mut self,
        _: &mut Ctx<'_, '_>,
        _: &mut Engine,
        _: &Event,
    ) -> Result<(), dunlin_base::kv::ReadError> {
        Ok(())
    }

    fn handle_timeout(
        &mut self,
        _: &mut Ctx<'_, '_>,
        _: &mut Engine,
    ) -> Result<(), dunlin_base::kv::ReadError> {
        Ok(())
    }

    fn timeout(&self) -> Option<Time> {
        None
    }

    fn poll_notice(&mut self) -> Option<Self::Notice> {
        None
    }
}
