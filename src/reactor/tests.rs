//! Tasks and real sockets on one thread, and calls from another.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::task::Poll;

use mio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::Reactor;
use super::polled::Polled;

type Tcp = Polled<TcpStream>;

/// Two ends of a connection over loopback.
async fn pair(reactor: &Rc<Reactor>) -> (Tcp, Tcp) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let ours = Tcp::connect(reactor, address).await.expect("it connects");
    let (theirs, _) = listener.accept().expect("it is accepted");
    theirs.set_nonblocking(true).expect("it obeys");
    (ours, Tcp::accepted(reactor, theirs).expect("it is watched"))
}

async fn read(socket: &Tcp) -> Vec<u8> {
    let mut buffer = [0; 8192];
    let read = poll_fn(|cx| socket.poll_read(cx, &mut buffer)).await.expect("it reads");
    buffer[..read].to_vec()
}

async fn write_all(socket: &Tcp, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| socket.poll_write(cx, bytes)).await.expect("it writes");
        bytes = &bytes[written..];
    }
}

fn run<T>(test: impl AsyncFnOnce(Rc<Reactor>) -> T) -> T {
    let reactor = Reactor::new().expect("a reactor");
    reactor.block_on(test(reactor.clone())).expect("it runs")
}

#[test]
fn what_one_end_writes_the_other_reads_and_then_its_end() {
    run(async |reactor| {
        let (ours, theirs) = pair(&reactor).await;
        for word in ["select", "1"] {
            write_all(&ours, word.as_bytes()).await;
            assert_eq!(read(&theirs).await, word.as_bytes());
        }
        write_all(&ours, b"bye").await;
        drop(ours);
        assert_eq!(read(&theirs).await, b"bye");
        assert_eq!(read(&theirs).await, b"");
        assert_eq!(read(&theirs).await, b"", "the end stays the end");
    });
}

#[test]
fn more_than_fits_is_written_while_it_is_read() {
    const SIZE: usize = 32 << 20;
    run(async |reactor| {
        let (ours, theirs) = pair(&reactor).await;
        let (done, all_read) = oneshot::channel();
        reactor.spawn(async move {
            let mut total = 0;
            loop {
                match read(&theirs).await.len() {
                    0 => break,
                    read => total += read,
                }
            }
            let _ = done.send(total);
        });
        write_all(&ours, &vec![7; SIZE]).await;
        drop(ours);
        assert_eq!(all_read.await, Ok(SIZE));
    });
}

#[test]
fn nobody_at_the_other_end_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: SocketAddr = listener.local_addr().expect("an address");
    drop(listener);
    run(async |reactor| {
        let error = Tcp::connect(&reactor, address).await.expect_err("nobody is there");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        let error = Polled::connect_path(&reactor, "/nonexistent/socket".as_ref());
        assert_eq!(error.expect_err("no file").kind(), std::io::ErrorKind::NotFound);
    });
}

#[test]
fn another_thread_wakes_a_task_that_sleeps() {
    run(async |_| {
        let (questions, mut inbox) = mpsc::channel::<oneshot::Sender<u32>>(1);
        let other = std::thread::spawn(move || {
            (0..100)
                .map(|_| {
                    let (reply, answer) = oneshot::channel();
                    questions.blocking_send(reply).expect("somebody listens");
                    answer.blocking_recv().expect("an answer")
                })
                .sum::<u32>()
        });
        while let Some(reply) = inbox.recv().await {
            let _ = reply.send(1);
        }
        assert_eq!(other.join().expect("it ends"), 100);
    });
}

#[test]
fn a_task_that_panics_ends_alone() {
    run(async |reactor| {
        reactor.spawn(async { panic!("on purpose") });
        let (ours, theirs) = pair(&reactor).await;
        write_all(&ours, b"still here").await;
        assert_eq!(read(&theirs).await, b"still here");
    });
}

#[test]
fn a_task_that_is_always_ready_starves_neither_tasks_nor_sockets() {
    run(async |reactor| {
        reactor.spawn(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let (ours, theirs) = pair(&reactor).await;
        let (done, ended) = oneshot::channel();
        reactor.spawn(async move {
            assert_eq!(read(&theirs).await, b"heard");
            let _ = done.send(());
        });
        write_all(&ours, b"heard").await;
        ended.await.expect("it was heard");
    });
}

#[test]
fn tasks_end_with_the_future_that_the_reactor_was_given() {
    let dropped = Rc::new(RefCell::new(0));
    struct Counted(Rc<RefCell<u32>>);
    impl Drop for Counted {
        fn drop(&mut self) {
            *self.0.borrow_mut() += 1;
        }
    }
    let reactor = Reactor::new().expect("a reactor");
    for _ in 0..3 {
        let counted = Counted(dropped.clone());
        reactor.spawn(async move {
            std::future::pending::<()>().await;
            drop(counted);
        });
    }
    reactor.block_on(async {}).expect("it runs");
    assert_eq!(*dropped.borrow(), 3);
}
