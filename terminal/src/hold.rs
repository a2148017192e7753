//! `passbook hold`: places, changes, captures, releases and reads holds.

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use passbook_command::{
    CliError,
    proto::{
        CaptureHoldRequest, GetHoldRequest, HoldState, ListHoldsRequest, PlaceHoldRequest,
        ReleaseHoldRequest, UpdateHoldRequest,
    },
};
use prost_types::{FieldMask, Timestamp};

use crate::{
    OnServer,
    arguments::{
        Amount, ChangeArguments, EffectiveTime, OptionalAmount, RequestId, money, parse_time,
    },
    change,
    output::{ListArguments, Page, print_pages},
    server::{CallKind, Server},
    view::hold_text,
};

#[derive(Subcommand)]
pub enum HoldCommand {
    /// Set an amount aside.
    Place(OnServer<Place>),
    /// Change the amount or the expiry of a hold.
    Update(OnServer<Update>),
    /// Take all or a part of the money of a hold, and release the rest, or keep it held with --keep-open.
    Capture(OnServer<Capture>),
    /// Give up a hold: what was not captured of it is available again.
    Release(OnServer<Release>),
    /// Print a hold as it is now.
    Get(OnServer<Get>),
    /// Print the holds of an account, in byte order of their ids.
    List(OnServer<List>),
}

impl HoldCommand {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Place(command) => command.run(Place::run).await,
            Self::Update(command) => command.run(Update::run).await,
            Self::Capture(command) => command.run(Capture::run).await,
            Self::Release(command) => command.run(Release::run).await,
            Self::Get(command) => command.run(Get::run).await,
            Self::List(command) => command.run(List::run).await,
        }
    }
}

#[derive(Args)]
pub struct Place {
    /// The account whose money is held.
    account_id: String,

    #[command(flatten)]
    amount: Amount,

    /// The name of the hold. Default: the server creates a UUID.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    hold_id: String,

    /// When the hold expires: like 2026-12-24T18:00:00Z, or a date. Default: never.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expire_time: Option<Timestamp>,

    #[command(flatten)]
    change: ChangeArguments,
}

impl Place {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let labels = self.change.labels.map()?;
        let request = |request_id| PlaceHoldRequest {
            request_id,
            hold_id: self.hold_id,
            account_id: self.account_id,
            amount: Some(self.amount.money()),
            expire_time: self.expire_time,
            description: self.change.description,
            labels,
        };
        let call = async |request| server.accounts().place_hold(request).await;
        change::send(server, self.change.request_id, request, call).await
    }
}

#[derive(Args)]
#[group(id = "changes", required = true, multiple = true, args = ["amount", "expire_time", "never_expires"])]
pub struct Update {
    /// The id of the hold. Of the caller's own hold, the name is enough.
    hold_id: String,

    /// The new amount, what was captured included, and its currency.
    #[arg(long, num_args = 2, value_names = ["AMOUNT", "CURRENCY"], allow_negative_numbers = true)]
    amount: Option<Vec<String>>,

    /// When the hold expires: like 2026-12-24T18:00:00Z, or a date.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expire_time: Option<Timestamp>,

    /// The hold no longer expires.
    #[arg(long, conflicts_with = "expire_time")]
    never_expires: bool,

    #[command(flatten)]
    request_id: RequestId,
}

impl Update {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let amount = self.amount.as_deref().and_then(<[String]>::as_array);
        let amount = amount.map(|[value, currency]| money(value, currency));
        let changes_expiry = self.never_expires || self.expire_time.is_some();
        let changes = [("amount", amount.is_some()), ("expire_time", changes_expiry)];
        let paths = changes.into_iter().filter(|(_, is_changed)| *is_changed);
        let paths = paths.map(|(path, _)| path.to_owned()).collect();
        let request = |request_id| UpdateHoldRequest {
            request_id,
            hold_id: self.hold_id,
            update_mask: Some(FieldMask { paths }),
            amount,
            expire_time: self.expire_time,
        };
        let call = async |request| server.accounts().update_hold(request).await;
        change::send(server, self.request_id, request, call).await
    }
}

#[derive(Args)]
pub struct Capture {
    /// The id of the hold. Of the caller's own hold, the name is enough.
    hold_id: String,

    #[command(flatten)]
    amount: OptionalAmount,

    /// The account that receives the money. Default: the money leaves the ledger.
    #[arg(long, value_name = "ACCOUNT_ID", default_value = "", hide_default_value = true)]
    to: String,

    /// Keep the rest for later captures, instead of releasing it.
    #[arg(long)]
    keep_open: bool,

    /// Let the amount exceed the hold, such as by a tip, if the account has the excess available.
    #[arg(long)]
    allow_excess: bool,

    #[command(flatten)]
    effective: EffectiveTime,

    #[command(flatten)]
    change: ChangeArguments,
}

impl Capture {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let labels = self.change.labels.map()?;
        let request = |request_id| CaptureHoldRequest {
            request_id,
            hold_id: self.hold_id,
            amount: self.amount.money(),
            destination_account_id: self.to,
            description: self.change.description,
            labels,
            keep_open: self.keep_open,
            allow_excess: self.allow_excess,
            effective_time: self.effective.time,
        };
        let call = async |request| server.accounts().capture_hold(request).await;
        change::send(server, self.change.request_id, request, call).await
    }
}

#[derive(Args)]
pub struct Release {
    /// The id of the hold. Of the caller's own hold, the name is enough.
    hold_id: String,

    #[command(flatten)]
    request_id: RequestId,
}

impl Release {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request = |request_id| ReleaseHoldRequest { request_id, hold_id: self.hold_id };
        let call = async |request| server.accounts().release_hold(request).await;
        change::send(server, self.request_id, request, call).await
    }
}

#[derive(Args)]
pub struct Get {
    /// The id of the hold. Of the caller's own hold, the name is enough.
    hold_id: String,
}

impl Get {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request = GetHoldRequest { hold_id: self.hold_id };
        let send = async |request| server.accounts().get_hold(request).await;
        let hold = server.call(CallKind::Read, request, send).await?.hold.unwrap_or_default();
        server.format().print(&hold, || hold_text(&hold))
    }
}

#[derive(Args)]
pub struct List {
    /// The account of the holds.
    account_id: String,

    /// Only holds in this state.
    #[arg(long, value_name = "STATE", value_parser = state_parser())]
    state: Option<HoldState>,

    #[command(flatten)]
    list: ListArguments,
}

fn state_parser() -> impl TypedValueParser<Value = HoldState> {
    PossibleValuesParser::new(["open", "captured", "released", "expired"]).map(|name| {
        let name = format!("HOLD_STATE_{}", name.to_uppercase());
        HoldState::from_str_name(&name).unwrap_or_default()
    })
}

impl List {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let filter = ListHoldsRequest {
            account_id: self.account_id,
            state: self.state.unwrap_or_default().into(),
            ..Default::default()
        };
        print_pages(&self.list, server.format(), async |Page { page_size, page_token }| {
            let request = ListHoldsRequest { page_size, page_token, ..filter.clone() };
            let send = async |request| server.accounts().list_holds(request).await;
            let page = server.call(CallKind::Read, request, send).await?;
            Ok((page.holds, page.next_page_token))
        })
        .await
    }
}
