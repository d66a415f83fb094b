{{/* API and driver: each a container, in one pod with SQLite, in Deployments of their own with PostgreSQL. */}}

{{/* Of the job database's address, only the processes that need it hear. */}}
{{- define "binworks.serviceEnvironment" -}}
{{ include "binworks.environment" . }}
- {name: BINWORKS_HOME, value: /var/lib/binworks}
- {name: BINWORKS_KERNEL_CACHE, value: /tmp/kernels}
{{- include "binworks.storeEnvironment" . }}
{{- if include "binworks.split" . }}
- name: BINWORKS_DATABASE
  valueFrom:
    secretKeyRef: {name: {{ include "binworks.databaseSecret" . }}, key: {{ include "binworks.databaseKey" . }}}
{{- end }}
{{- end }}

{{- define "binworks.serviceMounts" -}}
{{ include "binworks.dataMounts" . }}
- {name: home, mountPath: /var/lib/binworks}
- {name: settings, mountPath: /var/lib/binworks/settings.json, subPath: settings.json, readOnly: true}
{{- end }}

{{- define "binworks.serviceVolumes" -}}
- name: scratch
  emptyDir: {}
{{ include "binworks.dataVolumes" . }}
- name: home
{{- if include "binworks.split" . }}
  emptyDir: {}
{{- else }}
  persistentVolumeClaim: {claimName: {{ include "binworks.claim" (list . "state") }}}
{{- end }}
- name: settings
  configMap: {name: {{ include "binworks.fullname" . }}-settings}
{{- end }}

{{/* Annotations: a pod is replaced when what it reads at its start has changed. */}}
{{- define "binworks.serviceAnnotations" -}}
checksum/settings: {{ include "binworks.settings" . | sha256sum }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Makes the job database and lets the administrator's first token in. */}}
{{- define "binworks.tokenContainer" -}}
- name: token
  {{- include "binworks.container" . | nindent 2 }}
  command: [python, -m, binworks.service.first_token, --home, /var/lib/binworks]
  {{- if .Values.token.existingSecret }}
  args: [--token-file, /etc/binworks/token/{{ .Values.token.key }}]
  {{- end }}
  env:
    {{- include "binworks.serviceEnvironment" . | nindent 4 }}
  resources: {{- toYaml .Values.driver.resources | nindent 4 }}
  volumeMounts:
    {{- include "binworks.serviceMounts" . | nindent 4 }}
    {{- if .Values.token.existingSecret }}
    - {name: token, mountPath: /etc/binworks/token, readOnly: true}
    {{- end }}
{{- end }}

{{- define "binworks.tokenVolume" -}}
{{- with .Values.token.existingSecret }}
- name: token
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "binworks.apiContainer" -}}
- name: api
  {{- include "binworks.container" . | nindent 2 }}
  command: [python, -m, binworks.api, --home, /var/lib/binworks]
  env:
    {{- include "binworks.serviceEnvironment" . | nindent 4 }}
  ports:
    - {name: http, containerPort: 8080, protocol: TCP}
  startupProbe:
    httpGet: {path: /healthz, port: http}
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 150
  readinessProbe:
    # scheduler and driver come and go; what the API can tell without them, it tells
    httpGet: {path: "/readyz?only=database", port: http}
    periodSeconds: 5
    timeoutSeconds: 5
  livenessProbe:
    httpGet: {path: /healthz, port: http}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  {{- with .Values.api.drainSeconds }}
  lifecycle:
    preStop:   # until it is known everywhere that this pod goes, requests still come
      exec: {command: [sleep, {{ . | quote }}]}
  {{- end }}
  resources: {{- toYaml .Values.api.resources | nindent 4 }}
  volumeMounts:
    {{- include "binworks.serviceMounts" . | nindent 4 }}
    {{- if ne .Values.tls.source "none" }}
    - {name: certificate, mountPath: /etc/binworks/tls/client, readOnly: true}
    {{- end }}
{{- end }}

{{- define "binworks.driverContainer" -}}
- name: driver
  {{- include "binworks.container" . | nindent 2 }}
  command: [python, -m, binworks.service.driver, --home, /var/lib/binworks]
  env:
    {{- include "binworks.serviceEnvironment" . | nindent 4 }}
  # It serves no port. A driver that works, or waits for the lease, touches this file every few seconds.
  startupProbe: {{- include "binworks.driverProbe" . | nindent 4 }}
    periodSeconds: 2
    failureThreshold: 150
  livenessProbe: {{- include "binworks.driverProbe" . | nindent 4 }}
    periodSeconds: 30
    failureThreshold: 4
  resources: {{- toYaml .Values.driver.resources | nindent 4 }}
  volumeMounts:
    {{- include "binworks.serviceMounts" . | nindent 4 }}
    {{- include "binworks.tlsMount" (list . "client") | nindent 4 }}
{{- end }}

{{- define "binworks.driverProbe" -}}
exec: {command: [sh, -c, 'test -n "$(find /var/lib/binworks/driver-alive -mmin -1)"']}
timeoutSeconds: 5
{{- end }}

{{/* The driver's certificate without its key: the API tells when it expires. */}}
{{- define "binworks.certificateVolume" -}}
{{- if ne .Values.tls.source "none" }}
- name: certificate
  secret:
    secretName: {{ include "binworks.tlsSecret" (list . "client") }}
    defaultMode: 0440
    items: [{key: ca.crt, path: ca.crt}, {key: tls.crt, path: tls.crt}]
{{- end }}
{{- end }}
