//! The floor: a forwarder that understands nothing, on bare tokio, in the same shape as the proxy
//! (a single-threaded runtime for each core, one task for each client).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

/// Threads that forward.
const WORKERS: usize = 2;
/// Bytes of a worker's buffer.
const BUFFER: usize = 64 * 1024;

/// Forwards whatever connects to `listen` to `target`; never ends.
pub(crate) fn serve(listen: SocketAddr, target: &str) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(listen)?;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let (sender, receiver) = mpsc::channel(128);
        let target = target.to_owned();
        std::thread::spawn(move || work(receiver, target));
        workers.push(sender);
    }
    for worker in workers.iter().cycle() {
        let (client, _) = listener.accept()?;
        client.set_nonblocking(true)?;
        worker.blocking_send(client).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    }
    Ok(())
}

fn work(mut clients: mpsc::Receiver<std::net::TcpStream>, target: String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = runtime.expect("a runtime");
    let buffer = Rc::new(RefCell::new(vec![0; BUFFER].into_boxed_slice()));
    runtime.block_on(async move {
        while let Some(client) = clients.recv().await {
            let (target, buffer) = (target.clone(), buffer.clone());
            spawn_local(async move {
                let client = TcpStream::from_std(client)?;
                client.set_nodelay(true)?;
                let server = TcpStream::connect(&target).await?;
                server.set_nodelay(true)?;
                copy(client, server, &buffer).await
            });
        }
    });
}

/// Copies both ways until one side ends.
async fn copy(
    mut client: TcpStream,
    mut server: TcpStream,
    buffer: &RefCell<Box<[u8]>>,
) -> io::Result<()> {
    loop {
        let (from_client, read) = poll_fn(|cx| poll(&mut client, &mut server, buffer, cx)).await;
        let read = read?;
        if read == 0 {
            return Ok(());
        }
        let to = if from_client { &mut server } else { &mut client };
        let rest = {
            let buffer = buffer.borrow();
            let bytes = buffer.get(..read).unwrap_or_default();
            match to.try_write(bytes) {
                Ok(written) if written == read => continue,
                Ok(written) => bytes.get(written..).unwrap_or_default().to_vec(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => bytes.to_vec(),
                Err(error) => return Err(error),
            }
        };
        // Others use the buffer while this one waits.
        to.write_all(&rest).await?;
    }
}

fn poll(
    client: &mut TcpStream,
    server: &mut TcpStream,
    buffer: &RefCell<Box<[u8]>>,
    cx: &mut Context<'_>,
) -> Poll<(bool, io::Result<usize>)> {
    let mut buffer = buffer.borrow_mut();
    for (stream, is_client) in [(server, false), (client, true)] {
        let mut read = ReadBuf::new(&mut buffer);
        if let Poll::Ready(result) = Pin::new(stream).poll_read(cx, &mut read) {
            let length = read.filled().len();
            return Poll::Ready((is_client, result.map(|()| length)));
        }
    }
    Poll::Pending
}
