//! The compressed protocol: towards clients as they ask for it, towards servers as configured,
//! each whatever the other side does; inside TLS as outside of it.

use std::io::Write as _;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Compression, Conn, OptsBuilder, WhiteListFsHandler};
use pointsman::provider::Flavour;
use pointsman::provider::replication::APP;
use pointsman::provider::server::opts;

use crate::clients::command_line;
use crate::proxy::Proxy;
use crate::servers;

/// Longer than one packet of either protocol can hold.
const LARGE: usize = 17 << 20;
/// Lines of the file that is sent.
const LINES: usize = 40_000;

/// How clients ask for it, by family; the first not at all.
fn manners(flavour: Flavour) -> &'static [&'static [&'static str]] {
    match flavour {
        Flavour::Mariadb => &[&["--skip-compress"], &["--compress"], &["--compress", "--ssl"]],
        Flavour::Mysql => &[
            &["--compression-algorithms=uncompressed", "--commands"],
            &["--compression-algorithms=zlib", "--commands"],
            &["--compression-algorithms=zlib", "--commands", "--ssl-mode=REQUIRED"],
            &["--compression-algorithms=zstd", "--zstd-compression-level=19", "--commands"],
        ],
    }
}

#[tokio::test]
async fn each_side_is_compressed_as_it_asks_and_nothing_is_lost() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 1).await;
        let primary = cluster.primary().expect("a primary");
        let tables = [
            "SET GLOBAL local_infile = ON",
            "SET GLOBAL max_allowed_packet = 67108864",
            "CREATE TABLE app.large (v LONGTEXT)",
            "CREATE TABLE app.listed (a INT PRIMARY KEY, b VARCHAR(40))",
        ];
        primary.run(&tables).await.expect("tables");
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for line in 0..LINES {
            writeln!(file, "{line}\tthe text of line {line}").expect("written");
        }
        let path = file.path().display();
        let sql = [
            "\\s",
            "TRUNCATE large; TRUNCATE listed;",
            &format!("INSERT INTO large VALUES ('{}');", "x".repeat(LARGE)),
            &format!("LOAD DATA LOCAL INFILE '{path}' INTO TABLE listed;"),
            "SELECT 'large', LENGTH(v) FROM large;",
            "SELECT 'lines', COUNT(*), MAX(b) FROM listed;",
            "SELECT a, b FROM listed ORDER BY a;",
            "SELECT v FROM large;",
            "SELECT * FROM missing;",
            "SHOW SESSION STATUS LIKE 'Compression';",
        ]
        .join("\n");
        for towards_servers in ["off", "zlib", "zstd"] {
            let group = format!("server_compression = \"{towards_servers}\"");
            let proxy = Proxy::start(&cluster, &group).await;
            for manner in manners(flavour) {
                let mut arguments = manner.to_vec();
                let more = ["--local-infile=1", "--max-allowed-packet=64M", "--force", "app"];
                arguments.extend(more.iter().chain(&["--skip-column-names"]));
                let programs = cluster.programs();
                let said = command_line(programs, proxy.port, APP, &arguments, &sql);
                let what = format!("{flavour:?}, {manner:?}, servers {towards_servers}");
                let errors = said.error.matches("ERROR").count();
                assert_eq!(errors, 1, "{what}: {}", said.error);
                assert!(said.error.contains("ERROR 1146"), "{what}: {}", said.error);
                let client_is = said
                    .out
                    .lines()
                    .any(|line| line.starts_with("Protocol:") && line.contains("Compressed"));
                let asked =
                    !manner[0].ends_with("skip-compress") && !manner[0].ends_with("uncompressed");
                assert_eq!(
                    client_is,
                    asked,
                    "{what}: {}",
                    said.out.get(..1500).unwrap_or_default()
                );
                let zstd_here = flavour == Flavour::Mysql;
                let server_is =
                    towards_servers == "zlib" || (towards_servers == "zstd" && zstd_here);
                let shown = if server_is { "Compression\tON" } else { "Compression\tOFF" };
                assert!(said.out.lines().any(|line| line == shown), "{what}: {shown}");
                let has = |expected: &str| said.out.lines().any(|line| line == expected);
                assert!(has(&format!("large\t{LARGE}")), "{what}");
                assert!(has(&format!("lines\t{LINES}\tthe text of line 9999")), "{what}");
                let rows = (0..LINES).map(|line| format!("{line}\tthe text of line {line}"));
                assert!(
                    rows.eq(said
                        .out
                        .lines()
                        .map(str::to_owned)
                        .filter(|line| { line.starts_with(|byte: char| byte.is_ascii_digit()) })),
                    "{what}: the rows"
                );
                assert!(said.out.lines().any(|line| line.len() == LARGE), "{what}: the large row");
            }
        }
        cluster.down().await.expect("taken down");
    }
}

/// `mysql_async` looks at the numbers of packets inside compressed ones, and expects that a server
/// takes over the compressed packet's number with each result.
#[tokio::test]
async fn a_client_that_looks_at_numbers_keeps_its_place_in_several_results() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    (0..10).for_each(|line| writeln!(file, "{line}").expect("written"));
    let path = file.path().display().to_string();
    for flavour in servers::flavours() {
        let cluster = servers::shared(flavour);
        for towards_servers in ["off", "zlib"] {
            let group = format!("server_compression = \"{towards_servers}\"");
            let proxy = Proxy::start(cluster, &group).await;
            let at = opts(proxy.port, APP);
            let handler = WhiteListFsHandler::new([&path]);
            let options = OptsBuilder::from_opts(at)
                .compression(Compression::fast())
                .local_infile_handler(Some(handler));
            let mut client = Conn::new(options).await.expect("a login");
            client.query_drop("CREATE TEMPORARY TABLE looked (a INT)").await.expect("a table");
            // Rows longer than what is read at once come in pieces of packets.
            let long = "REPEAT('long', 50000)";
            let several = format!(
                "SELECT 1, 2 UNION ALL SELECT 3, 4; SELECT {long}; DO 1; SELECT {long}, 5, 6"
            );
            for round in 0..3 {
                let what = format!("{flavour:?}, servers {towards_servers}, round {round}");
                let mut results = client.query_iter(&several).await.expect(&what);
                let first: Vec<(u8, u8)> = results.collect().await.expect(&what);
                assert_eq!(first, [(1, 2), (3, 4)], "{what}");
                let second: Vec<String> = results.collect().await.expect(&what);
                assert_eq!(second, ["long".repeat(50_000)], "{what}");
                let third: Vec<u8> = results.collect().await.expect(&what);
                assert!(third.is_empty(), "{what}");
                let fourth: Vec<(String, u8, u8)> = results.collect().await.expect(&what);
                assert!(matches!(fourth.as_slice(), [(_, 5, 6)]), "{what}");
                // Files between results: both sides' numbers jump.
                let load = format!("LOAD DATA LOCAL INFILE '{path}' INTO TABLE looked");
                client.query_drop(format!("DO 2; {load}; {load}; DO 3")).await.expect(&what);
                let rows: Option<u64> =
                    client.query_first("SELECT COUNT(*) FROM looked").await.expect(&what);
                assert_eq!(rows, Some(20 * (round + 1)), "{what}");
            }
            client.disconnect().await.expect("a goodbye");
        }
    }
}
