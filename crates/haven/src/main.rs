//! The command line.

use clap::{Args, Parser, Subcommand};
use haven::{accept, bench, check, cluster, demo, logging, quick, serve, show, status};
use haven_admin::{Client, MoveRequest, RemoveRequest, StandbyRequest, TokenRequest};
use haven_config::{Config, LogFormat, LogLevel};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

mod memory;

/// How long a node may take to do what it is told, or to have another node do it.
const CONTROL_PATIENCE: Duration = Duration::from_secs(10);

/// How long a change of the members may take.
const MEMBERS_PATIENCE: Duration = Duration::from_secs(60);
/// Where the configuration is, as the package has it.
const CONFIG_DEFAULT: &str = "/etc/haven.toml";
/// Where the data are, as the package has it.
const DATA_DEFAULT: &str = "/var/lib/haven";

/// A highly available NFS server.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node: with a configuration file, or a single node without one.
    Serve(ServeArgs),
    /// Make a cluster of this machine, to which others can be added. Writes a configuration and prints what to do
    /// next. Overwrites nothing.
    Init(InitArgs),
    /// Let this machine join a cluster. May be repeated when it was cut short.
    Join(JoinArgs),
    /// Print a token that lets one machine join this node's cluster, once.
    Token {
        #[command(flatten)]
        node: NodeArgs,
        /// How long it counts.
        #[arg(long, default_value_t = cluster::TOKEN_HOURS)]
        hours: u64,
    },
    /// List, add and remove the nodes of a cluster. Works on every member.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Show three nodes on this machine surviving faults, with a client that takes the classic test.
    Demo(DemoArgs),
    /// Measure an NFS server, this or another, with NFSv3; or compare several.
    Bench(bench::Args),
    /// Show how the cluster is. Ends with status 0 when it is healthy, 1 when it serves but something is wrong,
    /// 2 when it does not serve.
    Status(StatusArgs),
    /// Move the service to another node by plan. Works on every member.
    Migrate {
        #[command(flatten)]
        node: NodeArgs,
        /// The service, and the node that shall lead. One word is the node, unless it is the service's name;
        /// without a node the most up-to-date one is taken.
        #[arg(value_names = ["SERVICE", "NODE"], num_args = 0..=2)]
        what: Vec<String>,
        /// Even to a node whose settings differ from those of the node that serves.
        #[arg(long)]
        force: bool,
    },
    /// Keep a node from leading: it goes on to vote and to replicate. Works on every member.
    Standby(StandbyArgs),
    /// Let a node lead again. Works on every member.
    Online(StandbyArgs),
    /// Check the data directory of a node that does not run, without changing it. Ends with status 0
    /// when nothing is wrong, 1 when something is, 2 when it could not be checked.
    Check(CheckArgs),
    /// Give up acknowledged changes that are gone from this node's disk, the only one that had them, so that it starts
    /// with what is left. Only after `haven serve` has said that they are gone; the node must not run.
    AcceptLoss(AcceptArgs),
    /// Look at configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Watches over floating addresses; started by `serve`.
    #[command(hide = true)]
    Guard,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say whether a configuration file is right, and what it would serve.
    Check {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Args)]
struct InitArgs {
    /// Where the other nodes reach this one: ADDRESS or ADDRESS:PORT (default port 7400).
    #[arg(long)]
    address: String,
    /// This node's name; default: the machine's.
    #[arg(long)]
    name: Option<String>,
    /// The cluster's name.
    #[arg(long, default_value = "haven")]
    cluster: String,
    /// Configuration file to write.
    #[arg(long, default_value = CONFIG_DEFAULT)]
    config: PathBuf,
    /// Data directory.
    #[arg(long, default_value = DATA_DEFAULT)]
    data: PathBuf,
    /// Floating address of the service, as ADDRESS/PREFIX: what clients mount. May be given several times.
    #[arg(long)]
    floating: Vec<String>,
    /// Path to export. May be given several times.
    #[arg(long, default_value = "/data")]
    export: Vec<String>,
    /// How many tokens for further machines to print.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=cluster::setup::TOKENS_MAX))]
    tokens: u64,
    /// How long these count.
    #[arg(long, default_value_t = cluster::TOKEN_HOURS)]
    hours: u64,
}

#[derive(Args)]
struct JoinArgs {
    /// The token, from `haven init` or `haven token`.
    token: String,
    /// Where the other nodes reach this one: ADDRESS or ADDRESS:PORT; default: the address from which this
    /// machine reaches the cluster, port 7400.
    #[arg(long)]
    address: Option<String>,
    /// This node's name; default: the machine's.
    #[arg(long)]
    name: Option<String>,
    /// Configuration file to write.
    #[arg(long, default_value = CONFIG_DEFAULT)]
    config: PathBuf,
    /// Data directory, to be empty.
    #[arg(long, default_value = DATA_DEFAULT)]
    data: PathBuf,
    /// Ask this member rather than the one that the token names.
    #[arg(long)]
    at: Option<String>,
    /// Be a witness: vote and keep the log, but hold no files.
    #[arg(long)]
    witness: bool,
}

#[derive(Subcommand)]
enum NodeCommand {
    /// The cluster's nodes.
    List {
        #[command(flatten)]
        node: NodeArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what to run on a machine that shall become a node (as `haven token`).
    Add {
        #[command(flatten)]
        node: NodeArgs,
        /// How long it counts.
        #[arg(long, default_value_t = cluster::TOKEN_HOURS)]
        hours: u64,
    },
    /// Remove a node for good: running or not, this one or another, the leader too.
    Remove {
        #[command(flatten)]
        node: NodeArgs,
        /// Its name or number.
        which: String,
    },
}

#[derive(Args)]
struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, conflicts_with_all = ["data", "export", "nfs_port", "mount_port", "listen"])]
    config: Option<PathBuf>,
    /// Data directory of a single node; default: a temporary one that is removed at the end.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Path to export.
    #[arg(long, default_value = "/data")]
    export: String,
    /// Port of NFS; 0 lets the system choose.
    #[arg(long, default_value_t = haven_config::NFS_PORT_DEFAULT)]
    nfs_port: u16,
    /// Port of MOUNT; 0 lets the system choose.
    #[arg(long, default_value_t = haven_config::MOUNT_PORT_DEFAULT)]
    mount_port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// From which severity on to log: error, warn, info, debug or trace; default: the configuration's.
    #[arg(long)]
    log_level: Option<LogLevel>,
    /// Form of the log: text or json; default: the configuration's.
    #[arg(long)]
    log_format: Option<LogFormat>,
    /// Only say whether the configuration is right, and what it would serve.
    #[arg(long, requires = "config")]
    check_config: bool,
}

#[derive(Args)]
struct DemoArgs {
    /// How often each kind of fault happens.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    rounds: u32,
    /// Where order and moment of the faults come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many clients change files without a pause, three operations at a time each. 16 keep two processors busy.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Print one JSON object instead of a story.
    #[arg(long)]
    json: bool,
    /// Leave the cluster running at the end, and say how to look at it, mount it and end it.
    #[arg(long)]
    keep: bool,
    /// Keep the nodes' data and logs in this directory, which must not exist yet.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Args)]
struct NodeArgs {
    /// Configuration file of the node; default: /etc/haven.toml.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Data directory of the node.
    #[arg(long, conflicts_with = "config")]
    data: Option<PathBuf>,
}

#[derive(Args)]
struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Show it again every second, until interrupted.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// How the node of this name sees it; default: the node that is asked.
    #[arg(long = "node", value_name = "NAME")]
    of: Option<String>,
}

#[derive(Args)]
struct StandbyArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The node's name; default: the node that is asked.
    name: Option<String>,
    /// Even if no other node could lead.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct CheckArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct AcceptArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Even if other nodes may have what this one lacks.
    #[arg(long)]
    force: bool,
}

/// Status of a check that could not be made.
const EXIT_UNCHECKED: u8 = 2;

impl NodeArgs {
    fn data(&self) -> Result<PathBuf, String> {
        match (&self.config, &self.data) {
            (Some(file), _) => Config::load(file)
                .map(|c| c.node.data)
                .map_err(|e| e.to_string()),
            (None, Some(data)) => Ok(data.clone()),
            (None, None) => Self::usual().data(),
        }
    }

    /// The packaged configuration.
    fn usual() -> Self {
        Self {
            config: Some(CONFIG_DEFAULT.into()),
            data: None,
        }
    }

    /// The control socket, and the configuration if it is known.
    fn read(&self) -> Result<(PathBuf, Option<Config>), String> {
        match (&self.config, &self.data) {
            (Some(file), _) => {
                let config = Config::load(file).map_err(|e| e.to_string())?;
                Ok((config.node.control.clone(), Some(config)))
            }
            (None, Some(data)) => Ok((data.join("control.sock"), None)),
            (None, None) => Self::usual().read(),
        }
    }
}

fn main() -> ExitCode {
    memory::keep_freed_memory();
    let cli = Cli::parse();
    let result = match cli.command {
        // Before anything starts a thread: see haven_platform::netns.
        Command::Demo(args) => run_demo(&args),
        Command::Guard => haven_platform::guard::run_child(std::io::stdin(), std::io::stdout())
            .map(|()| true)
            .map_err(|e| e.to_string()),
        Command::Serve(args) => run_serve(args).map(|()| true),
        Command::Config(ConfigCommand::Check { file }) => run_check(&file).map(|()| true),
        Command::Bench(args) => bench::run(&args).map(|()| true),
        Command::Status(args) => return run_status(args),
        Command::Init(args) => run_init(args).map(|()| true),
        Command::Join(args) => run_join(args).map(|()| true),
        Command::Token { node, hours } => new_token(&node, hours).map(|token| {
            println!("{token}");
            true
        }),
        Command::Node(command) => run_node(command).map(|()| true),
        Command::Check(args) => return run_data_check(&args),
        Command::AcceptLoss(args) => run_accept(&args).map(|()| true),
        Command::Migrate { node, what, force } => run_migrate(&node, what, force).map(|()| true),
        Command::Standby(args) => run_standby(&args, true).map(|()| true),
        Command::Online(args) => run_standby(&args, false).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("haven: {why}");
            ExitCode::FAILURE
        }
    }
}

fn own_exe() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|e| format!("cannot tell where this binary is: {e}"))
}

fn run_demo(args: &DemoArgs) -> Result<bool, String> {
    demo::isolate()?;
    let options = demo::Options {
        rounds: args.rounds,
        seed: args.seed,
        json: args.json,
        clients: args.clients.into(),
        keep: args.keep,
    };
    demo::run(options, args.dir.as_deref(), &own_exe()?)
}

fn run_serve(args: ServeArgs) -> Result<(), String> {
    if let (true, Some(file)) = (args.check_config, &args.config) {
        return run_check(file);
    }
    let mut temporary = None;
    let config = match &args.config {
        Some(file) => Config::load(file).map_err(|e| e.to_string())?,
        None => {
            let data = match &args.data {
                Some(data) => data.clone(),
                None => temporary
                    .insert(quick::TemporaryDir::new()?)
                    .path()
                    .to_owned(),
            };
            quick::config(&quick::Wishes {
                data: &data,
                export: &args.export,
                nfs_port: args.nfs_port,
                mount_port: args.mount_port,
                listen: args.listen,
            })?
        }
    };
    let (level, format) = (config.log.level, config.log.format);
    logging::start(
        &config.node.name,
        args.log_level.unwrap_or(level),
        args.log_format.unwrap_or(format),
    );
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let disk = serve::open_disk(&config.node.data)?;
    let (exe, quickly, listen) = (own_exe()?, args.config.is_none(), args.listen);
    let said = move |ports: serve::Ports| {
        if quickly {
            quick::announce(listen, &args.export, ports);
        }
    };
    let runtime = serve::runtime()?;
    let end = runtime.block_on(serve::serve(config, disk, &exe, args.config, said));
    if let Err(why) = end {
        drop(temporary);
        eprintln!("haven: {why}");
        // Not by returning: that would wait for threads, of which one may wait for a disk that hangs.
        std::process::exit(1);
    }
    // Before the directory goes.
    drop(runtime);
    Ok(())
}

fn run_check(file: &Path) -> Result<(), String> {
    let config = Config::load(file).map_err(|e| e.to_string())?;
    print!("{}", show::summary(&config));
    println!("{} is right", file.display());
    Ok(())
}

/// Status when it cannot be found out how the cluster is.
const EXIT_UNKNOWN: u8 = 2;

fn run_init(args: InitArgs) -> Result<(), String> {
    let told = cluster::setup::init(&cluster::setup::Wishes {
        config: args.config,
        data: args.data,
        name: args.name,
        address: args.address,
        cluster: args.cluster,
        floating: args.floating,
        exports: args.export,
        tokens: args.tokens,
        hours: args.hours,
    })?;
    print!("{told}");
    Ok(())
}

fn run_join(args: JoinArgs) -> Result<(), String> {
    let told = serve::runtime()?.block_on(cluster::join::join(&cluster::join::Wishes {
        token: args.token,
        config: args.config,
        data: args.data,
        name: args.name,
        address: args.address,
        at: args.at,
        witness: args.witness,
    }))?;
    print!("{told}");
    Ok(())
}

fn about_members(node: &NodeArgs) -> Result<(Client, tokio::runtime::Runtime), String> {
    let (socket, _) = node.read()?;
    Ok((Client::unix(&socket, MEMBERS_PATIENCE), serve::runtime()?))
}

fn new_token(node: &NodeArgs, hours: u64) -> Result<String, String> {
    let (client, runtime) = about_members(node)?;
    let token = runtime.block_on(client.token(TokenRequest { hours }));
    token.map_err(|e| e.to_string())
}

fn run_node(command: NodeCommand) -> Result<(), String> {
    match command {
        NodeCommand::List { node, json } => {
            let (client, runtime) = about_members(&node)?;
            let rows = runtime
                .block_on(client.nodes())
                .map_err(|e| e.to_string())?;
            if json {
                let text = serde_json::to_string_pretty(&rows).map_err(|e| e.to_string())?;
                println!("{text}");
                return Ok(());
            }
            println!("number  name              address                   state        key");
            for row in rows {
                println!(
                    "{:6}  {:16}  {:24}  {:11}  {}",
                    row.id, row.name, row.address, row.state, row.key
                );
            }
        }
        NodeCommand::Add { node, hours } => {
            let token = new_token(&node, hours)?;
            println!("On the new machine, within {hours} hours:\n\n    haven join {token}\n");
        }
        NodeCommand::Remove { node, which } => {
            let (client, runtime) = about_members(&node)?;
            let request = RemoveRequest {
                node: which.clone(),
            };
            let removed = runtime.block_on(client.remove_node(request));
            removed.map_err(|e| e.to_string())?;
            println!("{which} is no member any more; its certificate is not accepted");
        }
    }
    Ok(())
}

fn run_status(args: StatusArgs) -> ExitCode {
    let told = args.node.read().and_then(|(socket, config)| {
        let options = status::Options {
            socket,
            config,
            json: args.json,
            watch: args.watch,
            of: args.of,
        };
        serve::runtime()?.block_on(status::run(&options))
    });
    match told {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("haven: {why}");
            ExitCode::from(EXIT_UNKNOWN)
        }
    }
}

/// The database panics at damage that it does not expect. The check turns that into a finding, which says
/// all that there is to say.
fn hush_database() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let at = panic.location().map(std::panic::Location::file);
        if !at.is_some_and(|file| file.contains("/redb-")) {
            usual(panic);
        }
    }));
}

fn run_data_check(args: &CheckArgs) -> ExitCode {
    hush_database();
    let checked = args.node.data().and_then(|data| {
        let report = check::run(&data)?;
        let text = if args.json {
            serde_json::to_string_pretty(&report).map_err(|e| e.to_string())? + "\n"
        } else {
            report.to_string()
        };
        // Nobody listening changes nothing about the verdict.
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(report.clean)
    });
    match checked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("haven: {why}");
            ExitCode::from(EXIT_UNCHECKED)
        }
    }
}

fn run_accept(args: &AcceptArgs) -> Result<(), String> {
    hush_database();
    print!("{}", accept::run(&args.node.data()?, args.force)?);
    Ok(())
}

/// What the words after `migrate` mean: `SERVICE NODE`, `SERVICE` or `NODE`.
fn move_request(what: Vec<String>, service: &str, force: bool) -> Result<MoveRequest, String> {
    let mut what = what.into_iter();
    let (service, to) = match (what.next(), what.next()) {
        (Some(service), Some(to)) => (Some(service), Some(to)),
        (Some(word), None) if word == service => (Some(word), None),
        (to, _) => (None, to),
    };
    Ok(MoveRequest { service, to, force })
}

fn run_migrate(node: &NodeArgs, what: Vec<String>, force: bool) -> Result<(), String> {
    let client = Client::unix(&node.read()?.0, CONTROL_PATIENCE);
    let moved = async {
        let status = client.status().await.map_err(|e| e.to_string())?;
        let nodes: Vec<&str> = status.nodes.iter().map(|n| n.facts.name.as_str()).collect();
        if let [word] = what.as_slice()
            && *word == status.service
            && nodes.contains(&word.as_str())
        {
            return Err(format!("{word} is a service and a node: say SERVICE NODE"));
        }
        let request = move_request(what, &status.service, force)?;
        client
            .move_service(request)
            .await
            .map_err(|e| e.to_string())
    };
    let leader = serve::runtime()?.block_on(moved)?;
    println!("the service has moved to node {leader}");
    Ok(())
}

fn run_standby(args: &StandbyArgs, standby: bool) -> Result<(), String> {
    let client = Client::unix(&args.node.read()?.0, CONTROL_PATIENCE);
    let said = async {
        let node = match &args.name {
            Some(name) => name.clone(),
            None => client.node().await.map_err(|e| e.to_string())?.node,
        };
        let request = StandbyRequest {
            node: node.clone(),
            standby,
            force: args.force,
        };
        client.standby(request).await.map_err(|e| e.to_string())?;
        match standby {
            true => {
                println!("node {node} is in standby: it votes and replicates, but does not lead")
            }
            false => println!("node {node} may lead"),
        }
        Ok(())
    };
    serve::runtime()?.block_on(said)
}
