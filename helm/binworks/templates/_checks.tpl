{{/* What no schema can say: values that do not go together, and what the cluster lacks. */}}
{{- define "binworks.check" -}}
{{- $values := .Values }}
{{- if and $values.database.url $values.database.existingSecret }}
{{- fail "database: give url or existingSecret, not both." }}
{{- end }}
{{- if not (include "binworks.split" .) }}
{{- if gt (int $values.api.replicas) 1 }}
{{- fail "api.replicas: more than one API needs PostgreSQL (database.url or database.existingSecret); SQLite is a file that one pod holds." }}
{{- end }}
{{- if gt (int $values.driver.replicas) 1 }}
{{- fail "driver.replicas: a second driver needs PostgreSQL (database.url or database.existingSecret); SQLite is a file that one pod holds." }}
{{- end }}
{{- end }}
{{- if and $values.credentials.existingSecret $values.credentials.volume }}
{{- fail "credentials: give existingSecret or volume, not both." }}
{{- end }}
{{- if and $values.store.s3.url $values.store.existingClaim }}
{{- fail "store: give s3.url or existingClaim, not both." }}
{{- end }}
{{- if and (hasPrefix "http://" $values.store.s3.endpoint) (not $values.store.s3.allowHttp) }}
{{- fail "store.s3.endpoint: keys and results would go over the line as they are; if you mean it, set store.s3.allowHttp." }}
{{- end }}
{{- if lt (div (include "binworks.bytes" $values.workers.memory | int64) (int64 $values.workers.processes)) 536870912 }}
{{- fail "workers.memory: each of workers.processes needs 512Mi at least." }}
{{- end }}
{{- if lt (int $values.workers.lifetime) (int $values.workers.stagger) }}
{{- fail "workers.stagger: it must not be longer than workers.lifetime." }}
{{- end }}
{{- include "binworks.checkTls" . }}
{{- include "binworks.checkCluster" . }}
{{- if and $values.ingress.enabled (not $values.ingress.hosts) }}
{{- fail "ingress.hosts: name at least one." }}
{{- end }}
{{- end }}

{{- define "binworks.checkTls" -}}
{{- $tls := .Values.tls }}
{{- if eq $tls.source "secrets" }}
{{- range $role, $name := $tls.secrets }}
{{- if not $name }}
{{- fail (printf "tls.secrets.%s: name the secret of this role, with ca.crt, tls.crt and tls.key; `binworks tls init` makes the files." $role) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.scheduler.expose }}
{{- if and .type (eq $tls.source "none") }}
{{- fail "scheduler.expose: whoever reaches a scheduler without TLS can run code as the service; set tls.source." }}
{{- end }}
{{- if and .type (not .cidrs) }}
{{- fail "scheduler.expose.cidrs: name the networks of the workers outside." }}
{{- end }}
{{- end }}
{{- end }}

{{- define "binworks.checkCluster" -}}
{{- $scaling := .Values.workers.autoscaling }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- fail "workers.autoscaling: minReplicas is larger than maxReplicas." }}
{{- end }}
{{- if and (eq $scaling.kind "hpa") (lt (int $scaling.minReplicas) 1) }}
{{- fail "workers.autoscaling.minReplicas: an HPA keeps at least one pod; KEDA can do without." }}
{{- end }}
{{- if and (eq $scaling.kind "keda") (not $scaling.keda.prometheus) }}
{{- fail "workers.autoscaling.keda.prometheus: name the address of Prometheus." }}
{{- end }}
{{- $needed := dict }}
{{- if eq $scaling.kind "keda" }}{{- $_ := set $needed "keda.sh/v1alpha1" "workers.autoscaling.kind: keda" }}{{- end }}
{{- if eq .Values.tls.source "cert-manager" }}{{- $_ := set $needed "cert-manager.io/v1" "tls.source: cert-manager" }}{{- end }}
{{- if or .Values.monitoring.serviceMonitor.enabled .Values.monitoring.rules.enabled }}{{- $_ := set $needed "monitoring.coreos.com/v1" "monitoring" }}{{- end }}
{{- range $api, $value := $needed }}
{{- if not ($.Capabilities.APIVersions.Has $api) }}
{{- fail (printf "%s: the cluster does not know %s (if you render without a cluster, say so by --api-versions %s)." $value $api $api) }}
{{- end }}
{{- end }}
{{- end }}
