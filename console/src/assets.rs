//! The style and the script of all pages.

use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

pub async fn style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../assets/console.css"))
}

pub async fn script() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("../assets/console.js"))
}
