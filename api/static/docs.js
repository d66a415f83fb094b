"use strict";
// the file's own validator is asked over the network by default: not here
window.SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", validatorUrl: null, deepLinking: true, persistAuthorization: false });
