//! A bot that joins a group and says again whatever others say there.
//!
//! Started alone, it meets the one that it talks to in the same process, says a word to it and waits for the echo.

#![allow(clippy::print_stdout, reason = "an example talks to its terminal")]

use std::sync::Arc;

use dunlin_node::{Event, Group, MemoryStore, NodeConfig, NodeHandle};

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn echo(config: NodeConfig, invitation: Group) -> Outcome {
    let node = NodeHandle::alone(config).await?;
    let mut events = node.events();
    let group = node.join(&invitation).await?;
    while let Ok(event) = events.recv().await {
        if let Event::Message(message) = &*event
            && !message.own
        {
            node.send(group, message.payload.clone()).await?;
        }
    }
    Ok(())
}

/// Runs both sides.
#[tokio::main]
pub async fn main() -> Outcome {
    let node = NodeHandle::alone(NodeConfig::new(Arc::new(MemoryStore::default()))).await?;
    let mut events = node.events();
    let group = node.transact(|ctx, engine, _| engine.create_group(ctx)).await?;
    let invitation = node.view(move |read, engine, _| engine.invitation(read, &group)).await?;

    let mut config = NodeConfig::new(Arc::new(MemoryStore::default()));
    config.connect = node.addresses();
    let bot = tokio::spawn(echo(config, invitation));
    node.send(group, b"who is there?".to_vec()).await?;
    let mut asked = 0;
    loop {
        match &*events.recv().await? {
            // What was sent before the bot had the key of this device is closed to it, so it is said again.
            Event::Presence { online: true, .. } | Event::Metadata(_) if asked < 20 => {
                asked += 1;
                node.send(group, b"who is there?".to_vec()).await?;
            }
            Event::Message(message) if !message.own => {
                println!("the bot says: {}", String::from_utf8_lossy(&message.payload));
                break;
            }
            _ => {}
        }
    }
    bot.abort();
    node.shutdown().await;
    Ok(())
}
