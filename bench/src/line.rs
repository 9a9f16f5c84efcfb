//! A line of few bytes a second between two processes: what passes through it comes later.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// How much is taken from a sender at once, in bytes.
const PIECE_BYTES: usize = 4096;
/// How late a timer may be without making the line slower.
const LATE: Duration = Duration::from_millis(10);

/// What each direction of a line carries.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    /// How much goes in at one end in a second.
    pub bytes_per_second: u32,
    /// How long a byte takes to the other end.
    pub one_way: Duration,
}

impl Line {
    /// Puts the line before a node that listens on TCP at `address`; the answer is what to dial instead.
    pub async fn before(self, address: &str) -> Result<String, Box<dyn std::error::Error>> {
        let (front, peer) = address.split_once("/p2p/").ok_or("the address names no peer")?;
        let (_, port) = front.rsplit_once("/tcp/").ok_or("the address is not of TCP")?;
        let port: u16 = port.parse()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let entrance = listener.local_addr()?.port();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                self.carry(near_read, far_write);
                self.carry(far_read, near_write);
            }
        });
        Ok(format!("/ip4/127.0.0.1/tcp/{entrance}/p2p/{peer}"))
    }

    /// Carries one direction until either end closes it.
    fn carry(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        // The line is full when it holds what it carries in the time to its end; then its entrance waits.
        let held = f64::from(self.bytes_per_second) * self.one_way.as_secs_f64();
        let (enter, mut leave) =
            mpsc::channel::<(Instant, Vec<u8>)>((held as usize / PIECE_BYTES).max(1) * 2);
        tokio::spawn(async move {
            let mut free = Instant::now();
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let count = from.read(&mut piece).await?;
                if count == 0 {
                    return io::Result::Ok(());
                }
                piece.truncate(count);
                // Who is woken late makes up for it.
                let earliest = Instant::now().checked_sub(LATE).unwrap_or(free);
                free = free.max(earliest)
                    + Duration::from_secs_f64(count as f64 / f64::from(self.bytes_per_second));
                sleep_until(free).await;
                if enter.send((free + self.one_way, piece)).await.is_err() {
                    return Ok(());
                }
            }
        });
        tokio::spawn(async move {
            while let Some((due, piece)) = leave.recv().await {
                sleep_until(due).await;
                to.write_all(&piece).await?;
            }
            to.shutdown().await
        });
    }
}
