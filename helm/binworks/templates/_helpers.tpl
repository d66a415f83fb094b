{{/* Name of everything: the release's, with the chart's where it does not say so itself. */}}
{{- define "binworks.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 44 | trimSuffix "-" -}}
{{- end }}

{{- define "binworks.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "binworks.labels" -}}
{{ include "binworks.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Not empty if the job database is a server, so that API and driver need not share a pod. */}}
{{- define "binworks.split" -}}
{{- if or .Values.database.url .Values.database.existingSecret -}}true{{- end -}}
{{- end }}

{{/* Component whose pods serve the API, and the one whose pods hold the driver. */}}
{{- define "binworks.apiComponent" -}}
{{- ternary "api" "service" (not (empty (include "binworks.split" .))) -}}
{{- end }}

{{- define "binworks.driverComponent" -}}
{{- ternary "driver" "service" (not (empty (include "binworks.split" .))) -}}
{{- end }}

{{- define "binworks.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Claim of `state` or `store`. Called with (list $ name). */}}
{{- define "binworks.claim" -}}
{{- $root := index . 0 }}{{- $name := index . 1 -}}
{{- (index $root.Values $name).existingClaim | default (printf "%s-%s" (include "binworks.fullname" $root) $name) -}}
{{- end }}

{{- define "binworks.databaseSecret" -}}
{{- .Values.database.existingSecret | default (printf "%s-database" (include "binworks.fullname" .)) -}}
{{- end }}

{{- define "binworks.databaseKey" -}}
{{- ternary .Values.database.key "url" (not (empty .Values.database.existingSecret)) -}}
{{- end }}

{{/* Secret of a role. Called with (list $ role). */}}
{{- define "binworks.tlsSecret" -}}
{{- $root := index . 0 }}{{- $role := index . 1 -}}
{{- if eq $root.Values.tls.source "secrets" -}}
{{- index $root.Values.tls.secrets $role -}}
{{- else -}}
{{- printf "%s-%s-tls" (include "binworks.fullname" $root) $role -}}
{{- end -}}
{{- end }}

{{- define "binworks.scheduler" -}}
{{- printf "%s://%s-scheduler:8786" (ternary "tcp" "tls" (eq .Values.tls.source "none")) (include "binworks.fullname" .) -}}
{{- end }}

{{/* A quantity of memory (Mi, Gi, Ti) in bytes. */}}
{{- define "binworks.bytes" -}}
{{- $units := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := . | trunc -2 -}}
{{- mulf (trimSuffix $unit .) (index $units $unit) | floor | int64 -}}
{{- end }}

{{/* Names under which the API may be asked: as set, or those of the ingress and of the service. */}}
{{- define "binworks.hosts" -}}
{{- $name := include "binworks.fullname" . -}}
{{- $inside := printf "%s.%s" $name .Release.Namespace -}}
{{- if .Values.settings.hosts -}}
{{- toJson .Values.settings.hosts -}}
{{- else if .Values.ingress.enabled -}}
{{- concat .Values.ingress.hosts (list $name $inside (printf "%s.svc" $inside) (printf "%s.svc.cluster.local" $inside) "localhost" "127.0.0.1") | toJson -}}
{{- else -}}
[]
{{- end -}}
{{- end }}
