//! The HTTP API: reads requests, asks `delivery` and the ledger, answers. One file per resource.
//!
//! It never calls a provider or a broker itself. Mistakes are [`problem::Problem`]s; every answer carries a request
//! id; bodies, headers and times are bounded.

mod auth;
mod batches;
mod bulk;
mod dead_letters;
mod erasures;
mod extract;
mod health;
mod idempotency;
mod import;
mod notifications;
mod pace;
mod preview;
pub mod problem;
mod quarantine;
mod queues;
mod records;
mod request_id;
mod requests;
mod server;
mod suppressions;
mod templates;
mod uncertain;
mod undecided;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::IntoResponse as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use auth::{KeyCheck, hash_key};
pub use import::ImportPlaces;
pub use pace::Pace;
pub use server::serve;

use self::problem::Problem;
use crate::delivery::Delivery;
use crate::domain::{Clock, IdSource};
use crate::store::Store;
use crate::upkeep::Upkeep;

/// What bounds a request; the section `[http]` of the settings.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    pub body_limit_bytes: usize,
    /// A client gets this long to send its headers.
    pub header_time_limit: Duration,
    /// No request is worked on for longer.
    pub request_time_limit: Duration,
    /// The server listens on loopback, where no key is needed as long as there is none.
    pub is_loopback: bool,
}

/// Everything handlers use.
pub struct ApiParts {
    pub delivery: Arc<Delivery>,
    pub store: Arc<dyn Store>,
    pub keys: KeyCheck,
    pub clock: Arc<dyn Clock>,
    pub ids: IdSource,
    pub options: HttpOptions,
    pub imports: ImportPlaces,
    pub metrics: PrometheusHandle,
    pub upkeep: Arc<Upkeep>,
    pub pace: Arc<Pace>,
    /// Cancelled when no new work may begin: readiness says so.
    pub stopping: CancellationToken,
}

/// Shared by all requests.
pub type Api = Arc<ApiParts>;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Vestnik",
        description = "Notifications for CRM teams: WhatsApp, Telegram, SMS and email, sent now, remembered for good.\n\n\
            Errors are `application/problem+json`. Lists are paged: give `nextCursor` back as `cursor`. \
            `Idempotency-Key` on a POST makes it safe to repeat."
    ),
    tags(
        (name = "notifications", description = "Send, and see what became of it"),
        (name = "batches", description = "Campaigns: how far they are, paused, resumed, cancelled"),
        (name = "dead-letters", description = "What did not go out, and what nobody knows of"),
        (name = "records", description = "Contacts, leads, deals and companies"),
        (name = "templates", description = "Texts with variables, in immutable versions"),
        (name = "suppressions", description = "Addresses that opted out"),
        (name = "operations", description = "Health and figures")
    ),
    modifiers(&BearerKey)
)]
struct Description;

struct BearerKey;

impl utoipa::Modify for BearerKey {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key made by `vestnik keys create`. Not needed on loopback while there is no key."))
            .build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// What needs a key and is bounded, what needs one and takes bodies of any size and time, and what is open to all.
fn described() -> [OpenApiRouter<Api>; 3] {
    let guarded = OpenApiRouter::new()
        .routes(routes!(notifications::create, notifications::list))
        .routes(routes!(bulk::auto))
        .routes(routes!(bulk::bulk))
        .routes(routes!(notifications::cancel))
        .routes(routes!(notifications::show, notifications::reschedule))
        .routes(routes!(batches::list))
        .routes(routes!(batches::show, batches::reschedule))
        .routes(routes!(batches::pause))
        .routes(routes!(batches::resume))
        .routes(routes!(batches::cancel))
        .routes(routes!(queues::show))
        .routes(routes!(uncertain::resolve_one))
        .routes(routes!(uncertain::list))
        .routes(routes!(uncertain::resolve))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::delete))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::causes))
        .routes(routes!(dead_letters::export))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(dead_letters::discard))
        .routes(routes!(templates::list))
        .routes(routes!(templates::save, templates::show, templates::delete))
        .routes(routes!(preview::preview))
        .routes(routes!(preview::test))
        .routes(routes!(records::list))
        .routes(routes!(records::show, records::replace, records::change, records::delete))
        .routes(routes!(erasures::erase))
        .routes(routes!(erasures::list))
        .routes(routes!(erasures::show))
        .routes(routes!(suppressions::list, suppressions::create))
        .routes(routes!(suppressions::delete));
    let streamed = OpenApiRouter::new().routes(routes!(import::import_records));
    let open = OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics));
    [guarded, streamed, open]
}

/// The OpenAPI 3.1 document of all routes.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let all = described().into_iter().fold(OpenApiRouter::with_openapi(Description::openapi()), OpenApiRouter::merge);
    all.split_for_parts().1
}

/// All routes.
pub fn router(api: Api) -> Router {
    let [guarded, streamed, open] = described();
    let auth = axum::middleware::from_fn_with_state(Arc::clone(&api), auth::layer);
    let time_limit = api.options.request_time_limit;
    let in_time = axum::middleware::from_fn(move |request, next: axum::middleware::Next| async move {
        let answered = tokio::time::timeout(time_limit, next.run(request)).await;
        answered.unwrap_or_else(|_| Problem::timeout().into_response())
    });
    let guarded =
        guarded.layer(auth.clone()).layer(DefaultBodyLimit::max(api.options.body_limit_bytes)).layer(in_time.clone());
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(guarded)
        .merge(streamed.layer(auth))
        .merge(open.layer(in_time))
        .split_for_parts();
    router
        .merge(utoipa_swagger_ui::SwaggerUi::new("/docs").url("/openapi.json", description))
        .fallback(|| async { Problem::not_found("there is nothing at this path; /docs lists what there is") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(|_| Problem::internal().into_response()))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), request_id::layer))
        .with_state(api)
}
